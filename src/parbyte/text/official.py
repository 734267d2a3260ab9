"""The contest's SentencePiece models, and their way of counting bytes.

Such a model normalises its input (nmt_nfkc, blanks collapsed), so a text that it would alter is
refused. Bytes are counted as the contest's scorer counts them, which decides what decodes to what:

    control, unknown, unused      0 bytes; the token after it stands at a boundary
    byte piece                    1 byte
    any other piece               its UTF-8 bytes after one leading U+2581 is taken off,
                                  plus 1 for that mark (a space) unless it stands at a boundary

Source: eval of openai/parameter-golf, train_gpt.py, build_sentencepiece_luts.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError, DataError
from parbyte.text.blob import expand, squeeze
from parbyte.text.piece_table import PieceTable
from parbyte.text.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    parse_model,
    write_model,
)
from parbyte.text.sentencepiece_tokenizer import SPACE_MARK, load_processor
from parbyte.text.tokenizer import Flags, Ids, Tokenizer, check_ids, printable

_BOUNDARIES = (PieceType.CONTROL, PieceType.UNKNOWN, PieceType.UNUSED)


class OfficialTokenizer(Tokenizer):
    """A SentencePiece model of the contest, with the contest's byte accounting."""

    kind = "official"
    is_lossless = False

    def __init__(self, model: SentencePieceModel) -> None:
        if model.bos_id < 0:
            raise DataError("the SentencePiece model has no BOS, so documents cannot be told apart")
        self.model = model
        self.vocab_size = len(model.pieces)
        self.bos_id = model.bos_id
        self._processor = load_processor(model)
        self._is_boundary = np.array([kind in _BOUNDARIES for kind in model.types])
        self._has_space = np.array(
            [
                kind not in (*_BOUNDARIES, PieceType.BYTE) and piece.startswith(SPACE_MARK)
                for piece, kind in zip(model.pieces, model.types, strict=True)
            ]
        )
        bare = [_bare_bytes(model, token) for token in range(self.vocab_size)]
        self._table = PieceTable(bare + [b" " + piece for piece in bare])

    @classmethod
    def from_blob(cls, blob: bytes) -> "OfficialTokenizer":
        """Rebuild the tokenizer from `to_blob`'s bytes; ArtifactError if they are damaged."""
        try:
            return cls(parse_model(expand(blob)))
        except DataError as error:
            raise ArtifactError(str(error)) from None

    def to_blob(self) -> bytes:
        """Return the model without its training settings, compressed."""
        return squeeze(write_model(self.model))

    def encode(self, text: bytes) -> Ids:
        """Return the ids of one document that the model restores exactly.

        Raises DataError with the offset of the first byte that the model would alter.
        """
        try:
            characters = text.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"the text is no valid UTF-8 at byte {error.start:,}, which this tokenizer needs; "
                'use tokenizer = "words", "sentencepiece" or "bytes"'
            ) from None
        ids = np.array(self._processor.encode(characters), dtype=np.uint16)
        restored = self.decode(ids)
        if restored != text:
            offset = _first_difference(text, restored)
            raise DataError(
                f"this tokenizer would alter the text at byte {offset:,}: "
                f"{text[offset : offset + 8]!r} would become {restored[offset : offset + 8]!r}; "
                'use tokenizer = "words", "sentencepiece" or "bytes"'
            )
        return ids

    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Return the bytes of a stream of ids; what stands before the first id is a boundary."""
        return self._table.join(self._codes(ids))

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the bytes that the contest's scorer owes to each id."""
        return self._table.count(self._codes(ids))

    def token_text(self, token: int) -> str:
        """Return the piece as text, its mark as a space; control pieces by their name."""
        if self._is_boundary[token]:
            return self.model.pieces[token]
        return printable(self._table[token + self.vocab_size * int(self._has_space[token])])

    def implied_spaces(self) -> tuple[Flags, Flags]:
        """See Tokenizer."""
        return ~self._is_boundary, self._has_space

    def _codes(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        flat = check_ids(ids, self.vocab_size).astype(np.int64)
        after_boundary = np.ones(len(flat), dtype=bool)
        after_boundary[1:] = self._is_boundary[flat[:-1]]
        return flat + self.vocab_size * (self._has_space[flat] & ~after_boundary)


def _bare_bytes(model: SentencePieceModel, token: int) -> bytes:
    piece, kind = model.pieces[token], model.types[token]
    if kind in _BOUNDARIES:
        return b""
    if kind is PieceType.BYTE:
        return bytes([int(piece[3:5], 16)])
    return piece.removeprefix(SPACE_MARK).encode()


def _first_difference(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
