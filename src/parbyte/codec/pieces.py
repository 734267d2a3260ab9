"""Documents fall into pieces, and pieces are gathered in frames; a table says which is which."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from parbyte.base.errors import BitstreamError
from parbyte.codec.frames import cut_point
from parbyte.codec.record import MAX_TABLE_BYTES, Head, read_varint, varint

MAX_PIECES = 1 << 16
MAX_NAME_BYTES = 4096
_FULL_TABLE_BYTES = 1 << 22
_SAMPLE_BYTES = 4096
_RAW, _ZSTD = b"\x00", b"\x01"
_DAMAGED = "a frame's table of documents is damaged"


@dataclass(frozen=True)
class Entry:
    """One document to be compressed, or an empty folder; its text comes in blocks, once."""

    blocks: Iterable[bytes] = ()
    name: bytes = b""
    mode: int = 0
    is_folder: bool = False


@dataclass(frozen=True)
class Piece:
    """A run of one document's bytes in a frame; only the first piece carries name and mode."""

    size: int
    begins: bool
    name: bytes = b""
    mode: int = 0
    is_folder: bool = False


@dataclass
class Batch:
    """The pieces of one frame and their text. first: the document of its first piece."""

    first: int = 0
    pieces: list[Piece] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    num_bytes: int = 0
    table_bytes: int = 0
    is_binary: bool = False

    def add(self, piece: Piece, text: bytes, document: int) -> None:
        """Append a piece of a document."""
        if not self.pieces:
            self.first, self.is_binary = document, _looks_binary(text)
        self.pieces.append(piece)
        self.texts.append(text)
        self.num_bytes += len(text)
        self.table_bytes += len(piece.name) + 16

    def takes(self, text: bytes, frame_bytes: int) -> bool:
        """Say whether a whole document may join: text and binary data keep apart."""
        if not self.pieces:
            return True
        is_full = len(self.pieces) >= MAX_PIECES or self.table_bytes >= _FULL_TABLE_BYTES
        if is_full or self.num_bytes + len(text) > frame_bytes:
            return False
        return not text or self.is_binary == _looks_binary(text)


def gather(entries: Iterable[Entry], frame_bytes: int) -> Iterator[Batch]:
    """Gather documents in frames of at most `frame_bytes`; cut longer ones, at newlines if near.

    Only one frame's text is held, whatever the documents' lengths.
    """
    batch = Batch()
    for document, entry in enumerate(entries):
        begins = True
        for text in _cut(entry.blocks, frame_bytes):
            if batch.pieces and not (begins and batch.takes(text, frame_bytes)):
                yield batch
                batch = Batch()
            name, mode = (entry.name, entry.mode) if begins else (b"", 0)
            piece = Piece(len(text), begins, name, mode, entry.is_folder)
            batch.add(piece, text, document)
            begins = False
    if batch.pieces:
        yield batch


def to_table(batch: Batch, number: int) -> bytes:
    """Return a frame's table; empty for a piece of a lone document without a name."""
    if batch.first == 0 and batch.pieces == [Piece(batch.num_bytes, number == 0)]:
        return b""
    parts = [varint(len(batch.pieces))]
    for piece in batch.pieces:
        flags = piece.begins | bool(piece.name) << 1 | piece.is_folder << 2
        parts.append(varint(piece.size << 3 | flags))
        if piece.name:
            parts += [varint(piece.mode), varint(len(piece.name)), piece.name]
    raw = b"".join(parts)
    import zstandard

    packed = zstandard.ZstdCompressor(level=12).compress(raw)
    return _ZSTD + packed if len(packed) < len(raw) else _RAW + raw


def from_table(head: Head) -> list[Piece]:
    """Return a frame's pieces; their sizes sum to its text. Raises BitstreamError."""
    if not head.table:
        if head.first:
            raise BitstreamError(_DAMAGED)
        return [Piece(head.text_bytes, head.number == 0)]
    raw, place = _unpack(head.table), 0

    def take(num_bytes: int) -> bytes:
        nonlocal place
        if place + num_bytes > len(raw):
            raise BitstreamError(_DAMAGED)
        place += num_bytes
        return raw[place - num_bytes : place]

    pieces: list[Piece] = []
    for index in range(read_varint(take, MAX_PIECES)):
        value = read_varint(take, head.text_bytes << 3 | 7)
        begins, is_named, is_folder = bool(value & 1), bool(value & 2), bool(value & 4)
        mode = read_varint(take, 0o7777) if is_named else 0
        name = take(read_varint(take, MAX_NAME_BYTES)) if is_named else b""
        if (index and not begins) or (is_folder and (value >> 3 or not is_named)):
            raise BitstreamError(_DAMAGED)
        pieces.append(Piece(value >> 3, begins, name, mode, is_folder))
    if place != len(raw) or not pieces or sum(piece.size for piece in pieces) != head.text_bytes:
        raise BitstreamError(_DAMAGED)
    return pieces


def _unpack(table: bytes) -> bytes:
    from parbyte.codec.methods import unzstd

    if table[:1] == _RAW:
        return table[1:]
    if table[:1] != _ZSTD:
        raise BitstreamError(_DAMAGED)
    return unzstd(table[1:], MAX_TABLE_BYTES)


def _cut(blocks: Iterable[bytes], frame_bytes: int) -> Iterator[bytes]:
    """Yield texts of at most `frame_bytes`; a single empty one for an empty document."""
    rest, is_empty = bytearray(), True
    for block in blocks:
        rest += block
        while len(rest) > frame_bytes:
            end = cut_point(bytes(rest[:frame_bytes]))
            yield bytes(rest[:end])
            del rest[:end]
            is_empty = False
    if rest or is_empty:
        yield bytes(rest)


def _looks_binary(text: bytes) -> bool:
    return b"\0" in text[:_SAMPLE_BYTES]
