"""The archive's format: records that can each be checked and found without the others.

    archive = "PBYB" 0x02 record* end length_of_end[4]
    record  = marker[3] kind number start text_bytes first table_bytes payload_bytes payload_crc[4]
              table crc[4] payload
    end     = a record of kind END: number of frames, bytes of text, documents; its table holds of
              each frame: record_bytes text_bytes documents crc[4]
docs/format.md says what each field means. `kind` is one byte, crcs are little endian, all other
numbers varints (7 bits a byte, low bits first).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from parbyte.base.errors import BitstreamError
from parbyte.codec.bitstream import PLAIN_MAGICS

FAMILY = b"PBYB"
"""How bitstreams and archives of every format begin."""

MAGIC = FAMILY + b"\x02"
MARKER = b"\xb5PF"
STORED, ZSTD, MODEL, END = 0, 1, 2, 255
MAX_TEXT_BYTES = 1 << 28
"""Of one frame: as much as CodecConfig.frame_bytes permits."""

MAX_TABLE_BYTES = 1 << 24
FOOTER_BYTES = 4
_MAX_NUMBER = 1 << 62
_BLOCK_BYTES = 1 << 20
_CUT = "the archive is cut short or damaged"


@dataclass(frozen=True, kw_only=True)
class Head:
    """What stands before a frame's payload.

    number: which frame. start: where its text begins. first: the document its first piece is of.
    """

    kind: int
    number: int
    start: int
    text_bytes: int
    first: int
    table: bytes
    payload_bytes: int
    payload_crc: int

    def to_bytes(self) -> bytes:
        """Return the head with its table and checksum."""
        numbers = (self.number, self.start, self.text_bytes, self.first)
        fields = b"".join(map(varint, (*numbers, len(self.table), self.payload_bytes)))
        crc = self.payload_crc.to_bytes(4, "little")
        body = MARKER + bytes([self.kind]) + fields + crc + self.table
        return body + crc_bytes(body)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What the end knows of a frame: where it is, and the checksum of its head."""

    offset: int
    record_bytes: int
    start: int
    text_bytes: int
    first_begun: int
    documents: int
    """How many documents begin in it, and the number of the first of these."""

    crc: bytes


class Source:
    """A stream that is read forwards, with its position; it allocates what it has read only."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.position = 0

    def take(self, num_bytes: int) -> bytes:
        """Return exactly so many bytes, or raise BitstreamError."""
        blocks: list[bytes] = []
        left = num_bytes
        while left:
            block = self.stream.read(min(left, _BLOCK_BYTES))
            if not block:
                raise BitstreamError(_CUT)
            blocks.append(block)
            left -= len(block)
        self.position += num_bytes
        return b"".join(blocks)

    def seek(self, position: int) -> None:
        """Go to a place counted from the archive's first byte."""
        self.stream.seek(position)
        self.position = position


def check_version(beginning: bytes) -> None:
    """Raise BitstreamError if what begins like one of our files has a format not read here."""
    version, known = beginning[len(FAMILY) : len(MAGIC)], sorted((MAGIC, *PLAIN_MAGICS))
    if version and beginning.startswith(FAMILY) and FAMILY + version not in known:
        raise BitstreamError(
            f"the compressed file has format {version[0]}, this parbyte reads formats "
            f"{', '.join(str(magic[-1]) for magic in known)}: use the parbyte that wrote it"
        )


def read_magic(source: Source) -> None:
    """Check an archive's first bytes."""
    beginning = source.take(len(MAGIC))
    check_version(beginning)
    if beginning != MAGIC:
        raise BitstreamError("this is no archive that parbyte wrote, or its beginning is damaged")


def read_head(source: Source) -> tuple[Head, bytes]:
    """Read one head; return it and its checksum. Raises BitstreamError if any bit is wrong."""
    parts: list[bytes] = []

    def take(num_bytes: int) -> bytes:
        parts.append(source.take(num_bytes))
        return parts[-1]

    if take(len(MARKER)) != MARKER:
        raise BitstreamError("a frame's head is damaged")
    kind = take(1)[0]
    number, start = read_varint(take, _MAX_NUMBER), read_varint(take, _MAX_NUMBER)
    text_bytes, first = read_varint(take, MAX_TEXT_BYTES), read_varint(take, _MAX_NUMBER)
    table_bytes = read_varint(take, MAX_TABLE_BYTES)
    payload_bytes = read_varint(take, text_bytes)
    payload_crc = int.from_bytes(take(4), "little")
    table = take(table_bytes)
    expected = crc_bytes(b"".join(parts))
    if take(4) != expected:
        raise BitstreamError("a frame's head is damaged")
    if kind not in (STORED, ZSTD, MODEL, END):
        raise BitstreamError("the archive needs a later parbyte: it has an unknown kind of frame")
    head = Head(
        kind=kind,
        number=number,
        start=start,
        text_bytes=text_bytes,
        first=first,
        table=table,
        payload_bytes=payload_bytes,
        payload_crc=payload_crc,
    )
    return head, expected


def read_payload(source: Source, head: Head) -> bytes:
    """Read the payload behind a head."""
    payload = source.take(head.payload_bytes)
    if zlib.crc32(payload) != head.payload_crc:
        raise BitstreamError("a frame is damaged")
    return payload


def end_record(slots: list[Slot], text_bytes: int, documents: int) -> bytes:
    """Return the end of an archive, footer included."""
    table = b"".join(
        varint(slot.record_bytes) + varint(slot.text_bytes) + varint(slot.documents) + slot.crc
        for slot in slots
    )
    head = Head(
        kind=END,
        number=len(slots),
        start=text_bytes,
        text_bytes=0,
        first=documents,
        table=table,
        payload_bytes=0,
        payload_crc=0,
    )
    data = head.to_bytes()
    return data + len(data).to_bytes(FOOTER_BYTES, "little")


def read_slots(end: Head) -> list[Slot]:
    """Return what the end's table says of the frames."""
    table, place = end.table, 0

    def take(num_bytes: int) -> bytes:
        nonlocal place
        if place + num_bytes > len(table):
            raise BitstreamError("the archive's index is damaged")
        place += num_bytes
        return table[place - num_bytes : place]

    slots: list[Slot] = []
    offset, start, begun = len(MAGIC), 0, 0
    while place < len(table):
        record_bytes = read_varint(take, _MAX_NUMBER)
        text_bytes, documents = read_varint(take, MAX_TEXT_BYTES), read_varint(take, _MAX_NUMBER)
        slots.append(
            Slot(
                offset=offset,
                record_bytes=record_bytes,
                start=start,
                text_bytes=text_bytes,
                first_begun=begun,
                documents=documents,
                crc=take(4),
            )
        )
        offset, start, begun = offset + record_bytes, start + text_bytes, begun + documents
    if (len(slots), start, begun) != (end.number, end.start, end.first):
        raise BitstreamError("the archive's index is damaged")
    return slots


def varint(value: int) -> bytes:
    """Return a whole number, 7 bits a byte, low bits first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def read_varint(take: Callable[[int], bytes], largest: int) -> int:
    """Read what `varint` wrote; BitstreamError if it exceeds `largest`."""
    value, shift = 0, 0
    while True:
        byte = take(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if value > largest or shift > 70:
            raise BitstreamError("the archive is damaged: a number in it is too large")
        if byte < 0x80:
            return value


def crc_bytes(data: bytes) -> bytes:
    """Return the CRC-32 of data, little endian."""
    return zlib.crc32(data).to_bytes(4, "little")
