"""An artifact before the audit: its predictor as the subject, its bitstream as the proof."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parbyte.audit.decode import check_decode
from parbyte.audit.lanes_scorer import LanesScorer
from parbyte.audit.run import Answer, audit
from parbyte.audit.subject import AuditConfig, Subject, cut_sample
from parbyte.audit.verdict import NotTested, Verdict
from parbyte.base.files import sha256_bytes
from parbyte.base.log import Console
from parbyte.codec.conditions import coding_arithmetic
from parbyte.codec.config import CodecConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import Artifact
from parbyte.predict.build import build_predictor, read_settings
from parbyte.predict.predictor import Predictor
from parbyte.text.lanes import MIN_LANE_TOKENS


@dataclass(kw_only=True)
class Case:
    """A subject made from an artifact, with what its decoding needs and what is left out."""

    subject: Subject
    artifact: Path
    bitstream: Path
    text: bytes
    """What the bitstream stands for: the subject's text or its beginning."""
    codec: CodecConfig
    gaps: list[NotTested] = field(default_factory=list)


def artifact_subject(
    name: str,
    artifact: Artifact,
    codec: CodecConfig,
    documents: Sequence[NDArray[np.uint16]],
    text: bytes,
) -> Subject:
    """Return an artifact's predictor as the audit sees it, over documents (ids without BOS)."""
    bos_id, window = artifact.tokenizer.bos_id, int(artifact.predict.get("window", 0))
    bos = np.array([bos_id], np.uint16)
    stream_N = np.concatenate([part for document in documents for part in (bos, document)])

    def scorer(predictor: Predictor) -> LanesScorer:
        return LanesScorer(predictor, bos_id, name=name, window=window)

    blank = GPT(artifact.model.config, seed=0).eval().requires_grad_(False)
    small = scorer(build_predictor(artifact))
    is_coarse = read_settings(artifact.predict).dtype != "float32"
    return Subject(
        name=name,
        scorer=small,
        sample_N=cut_sample(small, stream_N),
        text_N=stream_N,
        text=text,
        tokenizer=artifact.tokenizer,
        precise=scorer(build_predictor(_in_float32(artifact))) if is_coarse else None,
        untrained=scorer(build_predictor(replace(artifact, model=blank))),
        full_scorer=LanesScorer(
            build_predictor(artifact),
            bos_id,
            name=name,
            num_lanes=codec.lanes,
            min_lane_tokens=MIN_LANE_TOKENS,
            window=window,
        ),
        artifact_sha256=artifact.sha256,
    )


def _in_float32(artifact: Artifact) -> Artifact:
    """Return an artifact with a network of its own, which does not round its products."""
    predict = {**artifact.predict, "dtype": "float32"}
    return replace(artifact, model=copy.deepcopy(artifact.model), predict=predict)


def judge(case: Case, config: AuditConfig, console: Console) -> Verdict:
    """Make all checks; the bitstream, if it is there, must decode to the text."""
    subject, text, gaps = case.subject, case.text, case.gaps
    decoded: list[Answer] = []
    if case.bitstream.is_file():
        decoded += check_decode(
            case.artifact,
            case.bitstream,
            expected_sha256=sha256_bytes(text),
            expected_bytes=len(text),
            measured_nats=subject.ledger.nats if subject.ledger else None,
        )
        if len(text) < len(subject.text or b""):
            reason = f"all but the text's first {len(text):,} bytes: there is no bitstream of it"
            gaps = [*gaps, NotTested(check="T11", reason=reason)]
    with coding_arithmetic(case.codec.threads):
        return audit(subject, config, console, decoded, gaps)
