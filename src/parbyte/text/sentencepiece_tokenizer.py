"""SentencePiece models that restore every byte string: no normalisation, byte fallback.

What the library could alter never reaches it: invalid UTF-8, NUL, and U+2581, which is its own mark
for a space, are spelled by the byte pieces <0x00>..<0xFF>.
"""

import re
from collections.abc import Iterator

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError, DataError
from parbyte.text.blob import expand, squeeze
from parbyte.text.piece_table import PieceTable
from parbyte.text.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    byte_pieces,
    parse_model,
    write_model,
)
from parbyte.text.tokenizer import Ids, Tokenizer, check_ids, printable

SPACE_MARK = "\u2581"
# surrogateescape turns each byte of invalid UTF-8 into one of U+DC80..U+DCFF.
_AWKWARD = re.compile("[\udc80-\udcff\u2581\0]+")
_BLOCK_CHARACTERS = 2**16
_LIST, _MODEL = b"\0", b"\1"


class SentencePieceTokenizer(Tokenizer):
    """A lossless SentencePiece model: pieces, byte pieces and BOS."""

    kind = "sentencepiece"
    is_lossless = True

    def __init__(self, model: SentencePieceModel) -> None:
        flaw = _flaw(model)
        if flaw:
            raise DataError(
                f"the SentencePiece model would not restore every text: {flaw}; "
                'use tokenizer = "official", or let parbyte train one'
            )
        self.model = model
        self.vocab_size = len(model.pieces)
        self.bos_id = model.bos_id
        self._processor = load_processor(model)
        self._table = PieceTable([_piece_bytes(model, i) for i in range(self.vocab_size)])
        self._byte_ids = np.zeros(256, dtype=np.uint16)
        for value, token in byte_pieces(model).items():
            self._byte_ids[value] = token

    @classmethod
    def from_blob(cls, blob: bytes) -> "SentencePieceTokenizer":
        """Rebuild the tokenizer from `to_blob`'s bytes; ArtifactError if they are damaged."""
        plain = expand(blob)
        layout, body = plain[:1], plain[1:]
        if layout not in (_LIST, _MODEL):
            raise ArtifactError("the tokenizer's SentencePiece model is damaged")
        try:
            return cls(parse_model(body if layout == _MODEL else write_model(_from_list(body))))
        except DataError as error:
            raise ArtifactError(str(error)) from None

    def to_blob(self) -> bytes:
        """Return the compressed list of pieces, or the whole model where that says too little."""
        names = _to_list(self.model)
        if write_model(_from_list(names)) == write_model(self.model):
            return squeeze(_LIST + names)
        return squeeze(_MODEL + write_model(self.model))

    def encode(self, text: bytes) -> Ids:
        """Return the ids of one document; takes every byte string."""
        characters = text.decode("utf-8", "surrogateescape")
        parts = [np.zeros(0, dtype=np.uint16)]
        start = 0
        for awkward in _AWKWARD.finditer(characters):
            parts += self._encode_safe(characters, start, awkward.start())
            spelled = awkward.group().encode("utf-8", "surrogateescape")
            parts.append(self._byte_ids[np.frombuffer(spelled, dtype=np.uint8)])
            start = awkward.end()
        parts += self._encode_safe(characters, start, len(characters))
        return np.concatenate(parts)

    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Return the bytes of a stream of ids."""
        return self._table.join(check_ids(ids, self.vocab_size))

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the number of bytes of each id's piece."""
        return self._table.count(check_ids(ids, self.vocab_size))

    def token_text(self, token: int) -> str:
        """Return the piece as text; a BOS or another control piece by its name."""
        return printable(self._table[token]) or self.model.pieces[token]

    def _encode_safe(self, characters: str, start: int, end: int) -> Iterator[Ids]:
        while start < end:
            stop = _stop(characters, start, end)
            yield np.array(self._processor.encode(characters[start:stop]), dtype=np.uint16)
            start = stop


def load_processor(model: SentencePieceModel) -> sentencepiece.SentencePieceProcessor:
    """Give a checked model to the library; ArtifactError if the library refuses it."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=write_model(model))
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise ArtifactError(f"SentencePiece refuses the model: {reason[:200]}") from None


def _flaw(model: SentencePieceModel) -> str:
    flaws = {
        "it normalises its input": bool(model.charsmap),
        "it adds a space at the start": model.add_dummy_prefix,
        "it drops blanks": model.remove_extra_whitespaces or not model.escape_whitespaces,
        "it lacks some of the 256 byte pieces": len(byte_pieces(model)) < 256,
        "it spells no unknown characters by bytes": not model.byte_fallback,
        "it has no BOS": model.bos_id < 0,
    }
    return next((flaw for flaw, is_present in flaws.items() if is_present), "")


def _piece_bytes(model: SentencePieceModel, token: int) -> bytes:
    piece, kind = model.pieces[token], model.types[token]
    if kind is PieceType.BYTE:
        return bytes([int(piece[3:5], 16)])
    if kind in (PieceType.NORMAL, PieceType.USER_DEFINED):
        return piece.replace(SPACE_MARK, " ").encode()
    return b""


def _stop(characters: str, start: int, end: int) -> int:
    """Return where to cut a long text: before a space, which no trained piece holds inside."""
    if end - start <= _BLOCK_CHARACTERS:
        return end
    space = characters.rfind(" ", start + 1, start + _BLOCK_CHARACTERS)
    return space if space > 0 else start + _BLOCK_CHARACTERS


def _to_list(model: SentencePieceModel) -> bytes:
    return "\0".join(
        piece
        for piece, kind in zip(model.pieces, model.types, strict=True)
        if kind is PieceType.NORMAL
    ).encode()


def _from_list(names: bytes) -> SentencePieceModel:
    """Rebuild the model that `sentencepiece_training` makes from its normal pieces alone."""
    try:
        normal = [name for name in names.decode().split("\0") if name]
    except UnicodeDecodeError:
        raise ArtifactError("the tokenizer's list of pieces is damaged") from None
    head = ["<unk>", "<s>", *(f"<0x{value:02X}>" for value in range(256))]
    types = [PieceType.UNKNOWN, PieceType.CONTROL] + [PieceType.BYTE] * 256
    return SentencePieceModel(
        pieces=(*head, *normal),
        scores=(*(0.0 for _ in head), *(-float(rank) for rank in range(len(normal)))),
        types=(*types, *(PieceType.NORMAL for _ in normal)),
        model_type=2,
        byte_fallback=True,
        charsmap=b"",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        escape_whitespaces=True,
        bos_id=1,
        unk_id=0,
    )
