"""From an artifact and a text to a measured ledger: what `score` and the pipeline share.

A text is measured in the frames, lanes and threads in which the codec codes it, and on the same
device, so that measured and coded numbers differ by arithmetic and overhead alone.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from parbyte.base.errors import DataError
from parbyte.base.log import Console
from parbyte.codec.config import CodecConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from parbyte.pack.artifact import Artifact
    from parbyte.score.explain import Explanation
    from parbyte.score.ledger import Ledger
    from parbyte.text.tokenizer import Tokenizer

    Ids = NDArray[np.uint16]


def warm_up(artifact: "Artifact", config: CodecConfig) -> None:
    """Let kernels compile before a clock starts: a predictor prices and learns one made-up chunk.

    Once on a machine that takes a minute or two; the next process finds the machine code.
    """
    import torch

    from parbyte.codec.conditions import coding_arithmetic, place
    from parbyte.predict.build import build_predictor

    place(artifact, config.device)
    predictor = build_predictor(artifact)
    # What an ended lane is fed, BOS, would teach nothing.
    token = 0 if artifact.tokenizer.bos_id else 1
    chunk_1T = torch.full((1, predictor.chunk), token)
    with coding_arithmetic(config.threads):
        predictor.log_probs(chunk_1T)
        predictor.observe(chunk_1T)


def measure_documents(
    artifact: "Artifact", documents: "Iterable[Ids]", config: CodecConfig, console: Console
) -> "tuple[Ledger, Explanation]":
    """Return the measured ledger of documents, given as ids without BOS, and its stages' shares."""
    frames = _id_frames(documents, artifact.tokenizer, config.frame_bytes)
    return _measure_frames(artifact, frames, config, console)


def measure_file(
    artifact_path: Path, source: Path, config: CodecConfig, console: Console
) -> "tuple[Ledger, Explanation]":
    """Return the measured ledger of any file, and its stages' shares; one frame is in memory.

    Raises ArtifactError, or DataError if the file is empty, unreadable or cannot be encoded.
    """
    from parbyte.codec.frames import file_frames
    from parbyte.pack.artifact import load_artifact

    artifact = load_artifact(artifact_path)
    encode = artifact.tokenizer.encode
    frames = (
        [encode(document) for document in frame]
        for frame in file_frames(source, config.frame_bytes)
    )
    ledger, explanation = _measure_frames(artifact, frames, config, console)
    if not ledger.num_bytes:
        raise DataError(f"'{source}' is empty: there is nothing to score")
    return ledger, explanation


def _measure_frames(
    artifact: "Artifact", frames: "Iterable[list[Ids]]", config: CodecConfig, console: Console
) -> "tuple[Ledger, Explanation]":
    from parbyte.codec.conditions import coding_arithmetic, place
    from parbyte.predict.build import build_probed
    from parbyte.score.explain import Explainer
    from parbyte.score.ledger import ledger_of
    from parbyte.score.measure import measure
    from parbyte.text.lanes import plan_lanes

    place(artifact, config.device)
    tokenizer, (predictor, probes) = artifact.tokenizer, build_probed(artifact)
    explainer, scores = Explainer(probes), []
    with coding_arithmetic(config.threads):
        for frame in frames:
            lanes = plan_lanes(frame, tokenizer.bos_id, config.lanes)
            scores += measure(predictor, lanes, tokenizer, console).documents
            explainer.take(lanes, tokenizer)
    ledger = ledger_of("measured", scores)
    return ledger, explainer.explanation(ledger.num_bytes)


def _id_frames(
    documents: "Iterable[Ids]", tokenizer: "Tokenizer", frame_bytes: int
) -> "Iterator[list[Ids]]":
    """Group documents as `codec.frames.document_frames` groups their texts."""
    frame, size = [], 0
    for document in documents:
        num_bytes = int(tokenizer.byte_counts(document).sum())
        if frame and size + num_bytes > frame_bytes:
            yield frame
            frame, size = [], 0
        frame.append(document)
        size += num_bytes
    if frame:
        yield frame
