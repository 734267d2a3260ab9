"""The seam between bytes and token ids: every tokenizer keeps this contract.

A stream is, for each document, `bos_id` and then the document's ids. `encode` takes bytes to ids,
`decode` and `byte_counts` take ids back to bytes and to the number of bytes that each one owes.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError, DataError

Ids = NDArray[np.uint16]
Flags = NDArray[np.bool_]


class Tokenizer(ABC):
    """Bytes to ids and back, for one document (`encode`) or a stream of them (`decode`).

    is_lossless: `encode` takes every byte string; otherwise it refuses what it would alter.
    """

    kind: str
    vocab_size: int
    bos_id: int
    is_lossless: bool

    @abstractmethod
    def encode(self, text: bytes) -> Ids:
        """Return the ids of one document, without its BOS.

        Raises DataError with the offset of the first byte that would not be restored.
        """

    @abstractmethod
    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Return the bytes of a stream of ids; BOS adds none. Total: any ids in range decode."""

    @abstractmethod
    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the bytes owed by each id, in stream order; they sum to len(decode(ids))."""

    @abstractmethod
    def token_text(self, token: int) -> str:
        """Return a printable form of one id for reports."""

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one id that stands alone: without a space that others imply."""
        return self.decode(np.array([token]))

    def implied_spaces(self) -> tuple[Flags, Flags]:
        """Return bool[V] twice, asks and takes: a space is implied before j where it stands after i
        with asks[i] and takes[j].
        """
        return np.zeros(self.vocab_size, np.bool_), np.zeros(self.vocab_size, np.bool_)

    @abstractmethod
    def to_blob(self) -> bytes:
        """Return the compact, self-contained form that travels in the artifact."""


def load_tokenizer(kind: str, blob: bytes) -> Tokenizer:
    """Rebuild a tokenizer from `to_blob`'s bytes.

    Raises ArtifactError for an unknown kind or a damaged, foreign or hostile blob.
    """
    # Imported on demand: each kind costs its own library, and the kinds import this module.
    if kind == "bytes":
        from parbyte.text.byte_tokenizer import ByteTokenizer

        return ByteTokenizer.from_blob(blob)
    if kind == "words":
        from parbyte.text.word_tokenizer import WordTokenizer

        return WordTokenizer.from_blob(blob)
    if kind == "sentencepiece":
        from parbyte.text.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer.from_blob(blob)
    if kind == "official":
        from parbyte.text.official import OfficialTokenizer

        return OfficialTokenizer.from_blob(blob)
    raise ArtifactError(f"the artifact's tokenizer is of an unknown kind: '{kind[:40]}'")


def check_ids(ids: NDArray[np.integer], vocab_size: int) -> NDArray[np.integer]:
    """Return the ids as a flat array, or raise DataError if one is outside the vocabulary."""
    flat = np.asarray(ids).reshape(-1)
    if flat.size and (int(flat.max()) >= vocab_size or int(flat.min()) < 0):
        raise DataError(
            f"a token id lies outside the vocabulary: ids reach from {int(flat.min())} to "
            f"{int(flat.max())}, the vocabulary has {vocab_size:,}; was another tokenizer used?"
        )
    return flat


def printable(piece: bytes) -> str:
    """Write bytes for a report: valid UTF-8 as text, control characters and the rest escaped."""
    text = piece.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
