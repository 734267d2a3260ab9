"""The compressed file's format: a header, frames, an end mark; every byte of it is checked.

    file    = header frame* 0x00
    header  = "PBYB" version artifact[16] tokenizer[8] engine device threads turns? machine[4] crc
    frame   = lanes text_bytes continues[ceil(lanes / 8)] length{lanes} payload_bytes text[8]
              checks? crc payload
    checks  = number check[4]{number}
`artifact`, `tokenizer` and `text` are the first bytes of SHA-256 digests of the artifact file, of
the tokenizer's blob and of the frame's text; `machine` is one of what the numbers may depend on
beyond engine, device and threads (the portable engine depends on none of them: cpu, 1, zeros).
`engine` and `device` are one byte, `threads` and the rest are varints (7 bits a byte, low bits
first). crc: CRC-32, little endian, of all bytes of the file before it and of the frame's payload,
so that frames can be neither damaged nor exchanged. Version 1 has neither turns nor checks; in
version 4 lanes take turns (codec.drive), and each check is the CRC-32 of all frequencies so far
(codec.rangecoder says where). (Version 2 is the archive; 3 had a check for every chunk.)
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from parbyte.base.errors import BitstreamError

MAX_LANES = 1 << 16
MAX_TURNS = 2
PLAIN_MAGICS = (b"PBYB\x01", b"PBYB\x04")
"""How a bitstream begins, by version."""
_MAGIC = b"PBYB"
_VERSION, _VERSION_WITH_TURNS = 1, 4
_ARTIFACT_BYTES, _TOKENIZER_BYTES, _MACHINE_BYTES, _TEXT_BYTES = 16, 8, 4, 8
_MAX_TEXT_BYTES = 1 << 32
_MAX_LANE_TOKENS = 1 << 32
_CRC_BYTES = 4
_ENGINES = ("torch", "portable")
_DEVICES = ("cpu", "cuda")
_TAIL = "the compressed file is cut short or damaged: get it again"


@dataclass(frozen=True)
class Header:
    """What made the bitstream, and what must be the same to read it."""

    artifact: bytes
    tokenizer: bytes
    engine: str
    device: str
    threads: int
    machine: bytes
    turns: int = 1


@dataclass(frozen=True)
class Frame:
    """One independently coded piece of text. `continues`: see text.lanes.Lanes.

    checks: see codec.rangecoder; there are some where lanes take turns.
    """

    text_bytes: int
    text_digest: bytes
    lengths: tuple[int, ...]
    continues: tuple[bool, ...]
    payload: bytes
    checks: tuple[int, ...] = ()


class BitstreamWriter:
    """Writes header, frames and end mark to a stream that is open for bytes."""

    def __init__(self, stream: IO[bytes], header: Header) -> None:
        self._stream = stream
        self._has_checks = header.turns > 1
        fields = b"".join(
            (
                _MAGIC,
                bytes([_VERSION_WITH_TURNS if self._has_checks else _VERSION]),
                header.artifact,
                header.tokenizer,
                bytes([_ENGINES.index(header.engine), _DEVICES.index(header.device)]),
                _varint(header.threads),
                _varint(header.turns) if self._has_checks else b"",
                header.machine,
            )
        )
        self._crc = zlib.crc32(fields)
        stream.write(fields + _crc_bytes(self._crc))
        self.num_bytes = len(fields) + _CRC_BYTES

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        num_lanes = len(frame.lengths)
        flags = sum(bool(flag) << lane for lane, flag in enumerate(frame.continues))
        numbers = b"".join(_varint(length) for length in frame.lengths)
        checks = b"".join(_crc_bytes(check) for check in frame.checks)
        fields = b"".join(
            (
                _varint(num_lanes),
                _varint(frame.text_bytes),
                flags.to_bytes(-(-num_lanes // 8), "little"),
                numbers,
                _varint(len(frame.payload)),
                frame.text_digest,
                _varint(len(frame.checks)) + checks if self._has_checks else b"",
            )
        )
        self._crc = zlib.crc32(frame.payload, zlib.crc32(fields, self._crc))
        self._stream.write(fields + _crc_bytes(self._crc))
        self._stream.write(frame.payload)
        self.num_bytes += len(fields) + _CRC_BYTES + len(frame.payload)

    def close(self) -> None:
        """Write the end mark; the stream itself stays open."""
        self._stream.write(b"\x00")
        self.num_bytes += 1


class BitstreamReader:
    """Reads what BitstreamWriter wrote and raises BitstreamError at the first byte that is wrong.

    Nothing is allocated on the word of the file: a length beyond the file's end is refused first.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.num_bytes = self._left = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        self._crc = 0
        self.header = self._read_header()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order; the end mark must be the last byte of the file."""
        while num_lanes := self._varint(MAX_LANES):
            yield self._read_frame(num_lanes)
        if self._left:
            raise BitstreamError(
                f"{self._left:,} bytes stand behind the end of the compressed file: it is damaged"
            )

    def _read_header(self) -> Header:
        if self._left < len(_MAGIC) or self._take(len(_MAGIC)) != _MAGIC:
            raise BitstreamError("this is no file that parbyte compressed")
        version = self._take(1)[0]
        if version not in (_VERSION, _VERSION_WITH_TURNS):
            raise BitstreamError(
                f"the compressed file has format {version}, this parbyte reads bitstreams of "
                f"format {_VERSION} and {_VERSION_WITH_TURNS}"
            )
        artifact, tokenizer = self._take(_ARTIFACT_BYTES), self._take(_TOKENIZER_BYTES)
        engine, device = self._take(2)
        threads = self._varint(256)
        turns = self._varint(MAX_TURNS) if version == _VERSION_WITH_TURNS else 1
        machine = self._take(_MACHINE_BYTES)
        self._check(self._crc_field())
        self._has_checks = version == _VERSION_WITH_TURNS
        is_odd = not threads or self._has_checks != (turns > 1)
        if engine >= len(_ENGINES) or device >= len(_DEVICES) or is_odd:
            raise BitstreamError("the compressed file needs an engine that this parbyte lacks")
        names = _ENGINES[engine], _DEVICES[device]
        return Header(artifact, tokenizer, *names, threads, machine, turns)

    def _read_frame(self, num_lanes: int) -> Frame:
        text_bytes = self._varint(_MAX_TEXT_BYTES)
        flags = int.from_bytes(self._take(-(-num_lanes // 8)), "little")
        lengths = tuple(self._varint(_MAX_LANE_TOKENS) for _ in range(num_lanes))
        payload_bytes = self._varint(self._left)
        text_digest = self._take(_TEXT_BYTES)
        checks = self._take(_CRC_BYTES * self._varint(self._left)) if self._has_checks else b""
        crc = self._crc_field()
        payload = self._take(payload_bytes)
        self._check(crc)
        continues = tuple(bool(flags >> lane & 1) for lane in range(num_lanes))
        sums = tuple(sum_ for (sum_,) in struct.iter_unpack("<I", checks))
        return Frame(text_bytes, text_digest, lengths, continues, payload, sums)

    def _take(self, num_bytes: int) -> bytes:
        if num_bytes > self._left:
            raise BitstreamError(_TAIL)
        data = self._stream.read(num_bytes)
        self._left -= num_bytes
        self._crc = zlib.crc32(data, self._crc)
        return data

    def _varint(self, largest: int) -> int:
        value, shift = 0, 0
        while True:
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if value > largest or shift > 63:
                raise BitstreamError(_TAIL)
            if byte < 0x80:
                return value

    def _crc_field(self) -> bytes:
        crc_before = self._crc
        field = self._take(_CRC_BYTES)
        self._crc = crc_before
        return field

    def _check(self, field: bytes) -> None:
        if field != _crc_bytes(self._crc):
            raise BitstreamError("the compressed file is damaged: a checksum does not match")


def digests(artifact_sha256: str, tokenizer_sha256: str) -> tuple[bytes, bytes]:
    """Return the header's two digests from hexadecimal SHA-256 values."""
    artifact, tokenizer = bytes.fromhex(artifact_sha256), bytes.fromhex(tokenizer_sha256)
    return artifact[:_ARTIFACT_BYTES], tokenizer[:_TOKENIZER_BYTES]


def digest_text(text: bytes) -> bytes:
    """Return the digest by which a frame knows its text."""
    return hashlib.sha256(text).digest()[:_TEXT_BYTES]


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(_CRC_BYTES, "little")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
