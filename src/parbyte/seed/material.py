"""What a ladder is built from: a run's two networks, and an excerpt of text.

Shapes: N tokens of the stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError
from parbyte.base.files import sha256_bytes, sha256_file
from parbyte.codec.frames import document_frames, file_frames
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import Artifact, build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import FLOAT_BITS, QuantConfig
from parbyte.run_folder import ARTIFACT_FILE, DATA_FOLDER, WEIGHTS_FILE
from parbyte.text.prepare import split_documents
from parbyte.text.tokenizer import Tokenizer

NO_CAP = 1 << 40
_MIN_WINDOWS = 4
_FLOAT = QuantConfig(
    bits_embed=FLOAT_BITS,
    bits_table=FLOAT_BITS,
    bits_attn=FLOAT_BITS,
    bits_mlp=FLOAT_BITS,
    bits_proj=FLOAT_BITS,
)


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """The text of every rung."""

    name: str
    documents: list[bytes]
    ids: list[NDArray[np.uint16]]
    stream_N: NDArray[np.uint16]
    """Each document behind its BOS."""

    @property
    def text(self) -> bytes:
        """All documents, joined."""
        return b"".join(self.documents)

    def to_json(self) -> dict[str, Any]:
        """Return what identifies it."""
        text = self.text
        return {
            "name": self.name,
            "bytes": len(text),
            "tokens": len(self.stream_N) - 1,
            "documents": len(self.documents),
            "sha256": sha256_bytes(text),
        }


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The weights before and after packing."""

    float_model: GPT
    artifact: Artifact
    artifact_blob: bytes
    weights_sha256: str

    def float_blob(self) -> bytes:
        """Return an artifact of float16 weights, which no cap allows."""
        return build_artifact(
            self.float_model.state_dict(),
            self.float_model.config,
            self.artifact.tokenizer,
            self.artifact.predict,
            _FLOAT,
            PackConfig(),
            cap_bytes=NO_CAP,
            meta={},
            prior_N=self.artifact.prior_N,
        )


def load_networks(run: Path) -> Networks:
    """Read the networks of a run that was trained and packed. Raises ParbyteError."""
    from safetensors.torch import load_file

    artifact = load_artifact(run / ARTIFACT_FILE)
    float_model = GPT(artifact.model.config, seed=None).eval().requires_grad_(False)
    float_model.load_state_dict(load_file(run / WEIGHTS_FILE))
    return Networks(
        float_model=float_model,
        artifact=artifact,
        artifact_blob=(run / ARTIFACT_FILE).read_bytes(),
        weights_sha256=sha256_file(run / WEIGHTS_FILE),
    )


def take_excerpt(run: Path, text: Path | None, limit: int, tokenizer: Tokenizer) -> Excerpt:
    """Return the beginning of a file, or the first held-out documents, at most `limit` bytes.

    A held-out document that is longer than that is taken whole. Raises DataError.
    """
    if text is None:
        ids = split_documents(run / DATA_FOLDER, "heldout", tokenizer)
        frames = document_frames((tokenizer.decode(document) for document in ids), limit)
    else:
        frames = file_frames(text, limit)
    documents = _first(frames)
    ids = [tokenizer.encode(document) for document in documents]
    bos = np.array([tokenizer.bos_id], np.uint16)
    return Excerpt(
        name=str(text.name if text else "held-out text"),
        documents=documents,
        ids=ids,
        stream_N=np.concatenate([part for document in ids for part in (bos, document)]),
    )


def require_length(excerpt: Excerpt, window: int) -> None:
    """Raise DataError for a text too short to slide over."""
    if len(excerpt.stream_N) < _MIN_WINDOWS * window:
        raise DataError(
            f"the text has {len(excerpt.stream_N):,} tokens, the ladder needs "
            f"{_MIN_WINDOWS * window:,} (four windows): give a longer --text or --excerpt"
        )


def _first(frames: Iterator[list[bytes]]) -> list[bytes]:
    for documents in frames:
        return documents
    raise DataError("the text is empty: there is nothing to score")
