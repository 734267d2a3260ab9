"""Writes archives, and reads them strictly: from one end to the other, the first error ends it."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import BitstreamError
from parbyte.base.log import Console
from parbyte.codec.conditions import ANYWHERE, conditions, decoding_place
from parbyte.codec.config import CodecConfig
from parbyte.codec.crew import Crew
from parbyte.codec.methods import Methods
from parbyte.codec.pieces import Batch, Entry, Piece, from_table, gather, to_table
from parbyte.codec.record import (
    END,
    FOOTER_BYTES,
    MAGIC,
    MODEL,
    STORED,
    ZSTD,
    Head,
    Slot,
    Source,
    end_record,
    read_head,
    read_magic,
    read_payload,
    read_slots,
)
from parbyte.pack.artifact import Artifact

METHOD_NAMES = {STORED: "stored", ZSTD: "zstd", MODEL: "model"}


@dataclass(kw_only=True)
class ArchiveResult:
    """What one pass over an archive did, in either direction."""

    bitstream_bytes: int = 0
    text_bytes: int = 0
    documents: int = 0
    tokens: int = 0
    nats: float = 0.0
    seconds: float = 0.0
    frames: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METHOD_NAMES.values(), 0))
    """How many frames were coded by each method."""
    decodes: str = ""
    """Of a compression: where the archive decodes (codec.conditions.decoding_place)."""


@dataclass(frozen=True)
class Coded:
    """One frame of an archive, checked but not decoded."""

    head: Head
    pieces: list[Piece]
    payload: bytes


class Sink:
    """Where decoded pieces go; this one takes them as one text, or drops them without a stream."""

    needs_names = False

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self._stream = stream

    def begin(self, piece: Piece) -> None:
        """A document begins."""

    def write(self, data: bytes) -> None:
        """Take bytes of the document that was begun."""
        if self._stream is not None:
            self._stream.write(data)

    def end(self) -> None:
        """The bytes that follow belong to no document, or to one that will be begun."""


def compress_entries(
    artifact: Artifact,
    config: CodecConfig,
    entries: Iterable[Entry],
    sink: IO[bytes],
    console: Console,
    jobs: int = 1,
) -> ArchiveResult:
    """Write an archive to a stream, forwards only, with one frame in memory for each job."""

    def encode(methods: Methods, batch: Batch) -> tuple[Batch, int, bytes]:
        return batch, *methods.encode(batch.texts, config)

    crew, watch, done = Crew(artifact, console, jobs), Stopwatch(), ArchiveResult()
    sink.write(MAGIC)
    slots: list[Slot] = []
    offset = len(MAGIC)
    with closing(crew.map(encode, gather(entries, config.frame_bytes))) as frames:
        for number, (batch, kind, payload) in enumerate(frames):
            head = Head(
                kind=kind,
                number=number,
                start=done.text_bytes,
                text_bytes=batch.num_bytes,
                first=batch.first,
                table=to_table(batch, number),
                payload_bytes=len(payload),
                payload_crc=zlib.crc32(payload),
            )
            data = head.to_bytes()
            sink.write(data)
            sink.write(payload)
            begun = sum(piece.begins for piece in batch.pieces)
            slots.append(_slot(head, data[-4:], offset, len(data), done.documents, begun))
            offset += slots[-1].record_bytes
            done.text_bytes += batch.num_bytes
            done.documents += begun
            done.frames[METHOD_NAMES[kind]] += 1
    end = end_record(slots, done.text_bytes, done.documents)
    sink.write(end)
    done.bitstream_bytes = offset + len(end)
    needs_model = done.frames[METHOD_NAMES[MODEL]] > 0
    done.decodes = decoding_place(conditions(artifact, config.threads)) if needs_model else ANYWHERE
    return finish(done, crew, watch)


def read_archive(source: Source) -> Iterator[Coded]:
    """Yield an archive's frames from a stream that can only be read forwards.

    Raises BitstreamError at the first wrong byte; the end's table binds the frames together.
    """
    read_magic(source)
    slots: list[Slot] = []
    start, documents = 0, 0
    while True:
        offset = source.position
        try:
            head, crc = read_head(source)
            if head.kind == END:
                _check_end(source, head, slots, source.position - offset)
                return
            if (head.number, head.start) != (len(slots), start):
                raise BitstreamError("a frame is missing or out of its order")
            head_bytes = source.position - offset
            coded = Coded(head, _checked_pieces(head, documents), read_payload(source, head))
        except BitstreamError as error:
            raise BitstreamError(f"{error}: the text from byte {start:,} on is affected") from None
        begun = sum(piece.begins for piece in coded.pieces)
        slots.append(_slot(head, crc, offset, head_bytes, documents, begun))
        start, documents = start + head.text_bytes, documents + begun
        yield coded


def decode_into(crew: Crew, frames: Iterable[Coded], sink: Sink, done: ArchiveResult) -> None:
    """Decode frames and hand their pieces on in order."""

    def decode(methods: Methods, coded: Coded) -> tuple[Coded, bytes]:
        return coded, decode_one(methods, coded)

    with closing(crew.map(decode, frames)) as decoded:
        for coded, text in decoded:
            give(sink, coded, text)
            count(done, coded)


def decode_one(methods: Methods, coded: Coded) -> bytes:
    """Decode a frame; an error says which range of the text is affected."""
    try:
        return methods.decode(coded.head, coded.payload)
    except BitstreamError as error:
        start, stop = coded.head.start, coded.head.start + coded.head.text_bytes
        raise BitstreamError(f"{error} (bytes {start:,} to {stop:,} of the text)") from None


def give(sink: Sink, coded: Coded, text: bytes) -> None:
    """Hand the pieces of a decoded frame to a sink."""
    place = 0
    for piece in coded.pieces:
        if piece.begins:
            sink.begin(piece)
        sink.write(text[place : place + piece.size])
        place += piece.size


def count(done: ArchiveResult, coded: Coded) -> None:
    """Add a frame to a result."""
    done.text_bytes += coded.head.text_bytes
    done.documents += sum(piece.begins for piece in coded.pieces)
    done.frames[METHOD_NAMES[coded.head.kind]] += 1


def finish(done: ArchiveResult, crew: Crew, watch: Stopwatch) -> ArchiveResult:
    """Complete a result."""
    done.tokens, done.nats, done.seconds = crew.tokens, crew.nats, watch.elapsed_s()
    return done


def find_slots(source: Source) -> tuple[Head, list[Slot]]:
    """Find the end of an archive that can be sought in. Raises BitstreamError if it is damaged."""
    size = source.stream.seek(0, 2)
    source.seek(max(0, size - FOOTER_BYTES))
    end_bytes = int.from_bytes(source.take(min(size, FOOTER_BYTES)), "little")
    place = size - FOOTER_BYTES - end_bytes
    if place < len(MAGIC):
        raise BitstreamError("the archive's index is cut off or damaged")
    source.seek(place)
    end, _ = read_head(source)
    slots = read_slots(end)
    last = slots[-1].offset + slots[-1].record_bytes if slots else len(MAGIC)
    if end.kind != END or last != place or source.position != size - FOOTER_BYTES:
        raise BitstreamError("the archive's index is damaged")
    return end, slots


def head_at(source: Source, slot: Slot) -> tuple[Head, list[Piece]]:
    """Read the head of the frame that a slot of the index names; its payload comes next."""
    source.seek(slot.offset)
    head, crc = read_head(source)
    head_bytes = source.position - slot.offset
    if crc != slot.crc or head_bytes + head.payload_bytes != slot.record_bytes:
        raise BitstreamError("a frame's head is damaged")
    pieces = _checked_pieces(head, slot.first_begun)
    begun = sum(piece.begins for piece in pieces)
    found = (head.start, head.text_bytes, begun)
    if head.kind == END or found != (slot.start, slot.text_bytes, slot.documents):
        raise BitstreamError("a frame's head is damaged")
    return head, pieces


def _checked_pieces(head: Head, documents: int) -> list[Piece]:
    pieces = from_table(head)
    if head.first != documents - (not pieces[0].begins) or head.first < 0:
        raise BitstreamError("a frame's documents are out of their order")
    return pieces


def _slot(head: Head, crc: bytes, offset: int, head_bytes: int, documents: int, begun: int) -> Slot:
    return Slot(
        offset=offset,
        record_bytes=head_bytes + head.payload_bytes,
        start=head.start,
        text_bytes=head.text_bytes,
        first_begun=documents,
        documents=begun,
        crc=crc,
    )


def _check_end(source: Source, end: Head, slots: list[Slot], end_bytes: int) -> None:
    footer = source.take(FOOTER_BYTES)
    if end.payload_bytes or end.text_bytes or read_slots(end) != slots:
        raise BitstreamError("the archive's index does not fit its frames")
    if int.from_bytes(footer, "little") != end_bytes or source.stream.read(1):
        raise BitstreamError("the archive's last bytes are damaged, or others stand behind them")
