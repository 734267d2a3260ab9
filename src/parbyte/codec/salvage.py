"""Reads what is left of a damaged archive, and finds single documents in a sound one."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from parbyte.base.errors import BitstreamError, DataError
from parbyte.codec.archive import (
    ArchiveResult,
    Coded,
    Sink,
    count,
    decode_one,
    find_slots,
    give,
    head_at,
)
from parbyte.codec.crew import Crew
from parbyte.codec.methods import Methods
from parbyte.codec.pieces import Piece, from_table
from parbyte.codec.record import (
    END,
    MAGIC,
    MARKER,
    Head,
    Slot,
    Source,
    read_head,
    read_magic,
    read_payload,
)

_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True)
class Loss:
    """A range of the text that is lost; stop None: to an end that nothing tells."""

    start: int
    stop: int | None
    reason: str

    def __str__(self) -> str:
        stop = "the end" if self.stop is None else f"{self.stop:,}"
        return f"bytes {self.start:,} to {stop} of the text are lost: {self.reason}"


@dataclass(frozen=True)
class Listed:
    """One document of an archive as `list` shows it."""

    name: bytes
    mode: int
    size: int
    is_folder: bool


def salvage(crew: Crew, source: Source, sink: Sink, done: ArchiveResult) -> list[Loss]:
    """Restore every frame that is whole and return what is lost.

    Raises BitstreamError if a sound frame needs another model or engine.
    """
    losses: list[Loss] = []
    document = -1
    with closing(crew.map(_decode_or_lose, _survey(source))) as decoded:
        for found in decoded:
            if isinstance(found, Loss):
                losses.append(found)
                continue
            item, text = found
            if not item.pieces[0].begins and item.head.first != document:
                sink.end()
                if sink.needs_names:
                    stop = item.head.start + item.pieces[0].size
                    losses.append(Loss(item.head.start, stop, "the name of the document is lost"))
            give(sink, item, text)
            count(done, item)
            document = item.head.first + len(item.pieces) - 1
    done.bitstream_bytes = source.stream.seek(0, 2)
    return losses


def _decode_or_lose(methods: Methods, item: Coded | Loss) -> tuple[Coded, bytes] | Loss:
    if isinstance(item, Loss):
        return item
    methods.check(item.head, item.payload)
    try:
        return item, decode_one(methods, item)
    except BitstreamError as error:
        return Loss(item.head.start, item.head.start + item.head.text_bytes, str(error))


def read_document(crew: Crew, source: Source, number: int, sink: Sink) -> ArchiveResult:
    """Restore one document; no frame is decoded that holds nothing of it.

    Raises DataError if there is no such document, BitstreamError.
    """
    end, slots = find_slots(source)
    if not 0 <= number < end.first:
        raise DataError(f"no document {number}: the archive holds {end.first:,}, counted from 0")
    done = ArchiveResult(bitstream_bytes=source.stream.seek(0, 2), documents=1)
    heads = _heads_of(source, slots, number)
    frames = (Coded(head, pieces, read_payload(source, head)) for head, pieces in heads)
    with closing(crew.map(partial(_part_of, number), frames)) as parts:
        for text in parts:
            sink.write(text)
            done.text_bytes += len(text)
    return done


def list_documents(source: Source) -> list[Listed]:
    """Return an archive's documents without decoding any. Raises BitstreamError."""
    found: list[Listed] = []
    source.seek(0)
    read_magic(source)
    for slot in find_slots(source)[1]:
        _, pieces = head_at(source, slot)
        for piece in pieces:
            if piece.begins:
                found.append(Listed(piece.name, piece.mode, piece.size, piece.is_folder))
            else:
                last = found[-1]
                size = last.size + piece.size
                found[-1] = Listed(last.name, last.mode, size, last.is_folder)
    return found


def holds_names(source: Source) -> bool:
    """Say whether the first sound frame of an archive, damaged or not, names a document."""
    for item in _survey(source):
        if isinstance(item, Coded) and any(piece.begins for piece in item.pieces):
            return any(piece.name for piece in item.pieces)
    return False


def _heads_of(source: Source, slots: list[Slot], number: int) -> Iterator[tuple[Head, list[Piece]]]:
    """Yield heads of the frame in which a document begins and of those that go on with it."""
    for slot in slots:
        if slot.first_begun <= number < slot.first_begun + slot.documents:
            yield head_at(source, slot)
        elif slot.first_begun == number + 1:
            head, pieces = head_at(source, slot)
            if not pieces[0].begins:
                yield head, pieces


def _part_of(number: int, methods: Methods, coded: Coded) -> bytes:
    place = number - coded.head.first
    before = sum(piece.size for piece in coded.pieces[:place])
    return decode_one(methods, coded)[before : before + coded.pieces[place].size]


def _survey(source: Source) -> Iterator[Coded | Loss]:
    """Yield frames and losses: by the index if it is sound, else by searching for heads."""
    try:
        _, slots = find_slots(source)
    except BitstreamError as error:
        yield from _search(source, str(error))
        return
    source.seek(0)
    if source.take(len(MAGIC)) != MAGIC:
        yield Loss(0, 0, "the archive's first bytes are damaged")
    for slot in slots:
        try:
            head, pieces = head_at(source, slot)
            coded = Coded(head, pieces, read_payload(source, head))
        except BitstreamError as error:
            yield Loss(slot.start, slot.start + slot.text_bytes, str(error))
        else:
            yield coded


def _search(source: Source, reason: str) -> Iterator[Coded | Loss]:
    """Without an index: go from head to head, and behind damage to the next sound head."""
    size = source.stream.seek(0, os.SEEK_END)
    place, start, number, is_ended = 0, 0, 0, False
    while (place := _next_marker(source, place, size)) < size:
        source.seek(place)
        try:
            head, _ = read_head(source)
            is_stale = head.number < number or head.start < start
            pieces = [] if head.kind == END or is_stale else from_table(head)
        except BitstreamError:
            place += 1
            continue
        if is_stale:
            place += 1
            continue
        if head.start > start:
            yield Loss(start, head.start, "the frames between are damaged")
        if is_ended := head.kind == END:
            start = head.start
            break
        try:
            yield Coded(head, pieces, read_payload(source, head))
        except BitstreamError as error:
            yield Loss(head.start, head.start + head.text_bytes, str(error))
            place += len(MARKER)
        else:
            place = source.position
        start, number = head.start + head.text_bytes, head.number + 1
    yield Loss(start, start if is_ended else None, reason)


def _next_marker(source: Source, place: int, size: int) -> int:
    """Return where the next marker begins, or `size`."""
    while place < size:
        source.seek(place)
        window = source.stream.read(_WINDOW_BYTES)
        found = window.find(MARKER)
        if found >= 0:
            return place + found
        place += max(1, len(window) - len(MARKER) + 1)
    return size
