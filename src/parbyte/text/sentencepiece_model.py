"""The few fields of a SentencePiece model file that decide what it does, read and written here.

Written models hold nothing else (no paths, no trainer settings), so equal models are equal bytes,
and what the library gets to load from an artifact was checked and rebuilt by us.
Source: sentencepiece_model.proto of https://github.com/google/sentencepiece (field numbers).
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from parbyte.base.errors import ArtifactError
from parbyte.text.charsmap import check_charsmap


class PieceType(IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """Pieces with their scores and types, and how text is normalised before them.

    model_type: 1 unigram, 2 BPE (the only ones read). charsmap: the normaliser's compiled table;
    empty: none. bos_id, unk_id: -1 where the model has none.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[PieceType, ...]
    model_type: int
    byte_fallback: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    bos_id: int
    unk_id: int


def parse_model(data: bytes) -> SentencePieceModel:
    """Read a SentencePiece model; ArtifactError if it is none, or of a kind not supported."""
    pieces: list[tuple[str, float, PieceType]] = []
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_parse_piece(_bytes(value)))
        elif number == 2:
            trainer |= dict(_fields(_bytes(value)))
        elif number == 3:
            normalizer |= dict(_fields(_bytes(value)))
    if not 3 <= len(pieces) <= 65_536:
        raise ArtifactError(f"a SentencePiece model needs 3..65,536 pieces, found {len(pieces):,}")
    if len({piece for piece, _, _ in pieces}) != len(pieces):
        raise ArtifactError("the SentencePiece model holds one piece twice")
    model_type = _int(trainer.get(3, 1))
    if model_type not in (1, 2):
        raise ArtifactError(f"the SentencePiece model is of type {model_type}, not unigram or BPE")
    if _int(trainer.get(24, 0)):
        raise ArtifactError("the SentencePiece model treats blanks as suffixes: not supported")
    types = tuple(kind for _, _, kind in pieces)
    if types.count(PieceType.UNKNOWN) != 1:
        raise ArtifactError("the SentencePiece model needs exactly one unknown piece")
    bos_id = _find_bos(pieces, _int(trainer.get(41, 1)))
    charsmap = _bytes(normalizer.get(2, b""))
    check_charsmap(charsmap)
    return SentencePieceModel(
        pieces=tuple(piece for piece, _, _ in pieces),
        scores=tuple(score for _, score, _ in pieces),
        types=types,
        model_type=model_type,
        byte_fallback=bool(_int(trainer.get(35, 0))),
        charsmap=charsmap,
        add_dummy_prefix=bool(_int(normalizer.get(3, 1))),
        remove_extra_whitespaces=bool(_int(normalizer.get(4, 1))),
        escape_whitespaces=bool(_int(normalizer.get(5, 1))),
        bos_id=bos_id,
        unk_id=types.index(PieceType.UNKNOWN),
    )


def write_model(model: SentencePieceModel) -> bytes:
    """Write the canonical bytes of a model, which the SentencePiece library loads."""
    out = bytearray()
    for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True):
        body = _blob_field(1, piece.encode()) + b"\x15" + struct.pack("<f", score)
        out += _blob_field(1, body + _int_field(3, kind))
    trainer = _int_field(3, model.model_type) + _int_field(4, len(model.pieces))
    trainer += _int_field(35, int(model.byte_fallback))
    trainer += _int_field(40, model.unk_id) + _int_field(41, model.bos_id)
    trainer += _int_field(42, -1) + _int_field(43, -1)
    normalizer = _blob_field(1, b"identity" if not model.charsmap else b"own")
    normalizer += _blob_field(2, model.charsmap) if model.charsmap else b""
    normalizer += _int_field(3, int(model.add_dummy_prefix))
    normalizer += _int_field(4, int(model.remove_extra_whitespaces))
    normalizer += _int_field(5, int(model.escape_whitespaces))
    out += _blob_field(2, trainer) + _blob_field(3, normalizer)
    return bytes(out)


def byte_pieces(model: SentencePieceModel) -> dict[int, int]:
    """Return byte value -> id of the pieces <0x00>..<0xFF> that the model has."""
    return {
        int(piece[3:5], 16): token
        for token, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True))
        if kind is PieceType.BYTE
    }


def _find_bos(pieces: list[tuple[str, float, PieceType]], stated: int) -> int:
    if 0 <= stated < len(pieces) and pieces[stated][2] is PieceType.CONTROL:
        return stated
    return -1


def _parse_piece(data: bytes) -> tuple[str, float, PieceType]:
    fields = dict(_fields(data))
    try:
        piece = _bytes(fields.get(1, b"")).decode()
        kind = PieceType(_int(fields.get(3, 1)))
        score = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))[0]
    except (UnicodeDecodeError, ValueError, struct.error):
        raise ArtifactError("the SentencePiece model holds a piece that is damaged") from None
    if not piece or not math.isfinite(score) or "\0" in piece:
        raise ArtifactError("the SentencePiece model holds an empty or damaged piece")
    if kind is PieceType.BYTE and piece not in _BYTE_NAMES:
        raise ArtifactError("the SentencePiece model holds a byte piece that names no byte")
    return piece, score, kind


_BYTE_NAMES = frozenset(f"<0x{value:02X}>" for value in range(256))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (field number, value) of a protocol-buffer message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, position = _varint(data, position)
        if size is None or position + size > len(data):
            raise ArtifactError("no SentencePiece model: the data is damaged or of another format")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ArtifactError("no SentencePiece model: the data is damaged or of another format")


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ArtifactError("no SentencePiece model: a field has the wrong type")
    return value


def _int(value: bytes | int) -> int:
    if isinstance(value, bytes):
        raise ArtifactError("no SentencePiece model: a field has the wrong type")
    return value - 2**64 if value >= 2**63 else value


def _int_field(number: int, value: int) -> bytes:
    return _write_varint(number << 3) + _write_varint(value % 2**64)


def _blob_field(number: int, value: bytes) -> bytes:
    return _write_varint(number << 3 | 2) + _write_varint(len(value)) + value


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
