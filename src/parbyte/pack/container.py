"""The artifact's format: a checked frame around a JSON header and a payload of streams.

    offset  bytes
    0       7      magic "parbyte"
    7       1      version
    8       32     SHA-256 of everything before and after these 32 bytes
    40      1      coder of the header
    41      4      stored bytes of the header, little-endian like all numbers
    45      4      bytes of the header as JSON
    49      ...    header
    ...     ...    payload: streams that tile it without gap or overlap (placements in the header)

The reader trusts nothing: whatever is wrong with a file is an ArtifactError, and no more memory is
taken than the bytes that were checked before.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, expand, shrink

MAGIC = b"parbyte"
VERSION = 2
FRAME_BYTES = 49
_DIGEST = slice(8, 40)
_HEADER_CODERS = ("raw", "zstd", "lzma", "brotli")
_LARGEST_HEADER = 2**18
_LARGEST_FILE = 2**33


@dataclass(frozen=True)
class Placement:
    """Where in the payload a stream lies, and its coder."""

    coder: str
    offset: int
    length: int


class PayloadWriter:
    """Collects streams one after another and says where each one went."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, stream: Stream) -> list[Any]:
        """Append a stream; return its placement as the header spells it."""
        placement = [stream.coder, self._length, len(stream.payload)]
        self._pieces.append(stream.payload)
        self._length += len(stream.payload)
        return placement

    def payload(self) -> bytes:
        """Return all streams in order."""
        return b"".join(self._pieces)


@dataclass(frozen=True)
class Container:
    """A file whose frame, digest and JSON were found sound; the header's contents are unchecked."""

    header: dict[str, Any]
    payload: memoryview
    header_bytes: int

    def stream(self, placement: Placement) -> Stream:
        """Return one stream; `check_tiling` has made sure that it lies in the payload."""
        end = placement.offset + placement.length
        return Stream(placement.coder, bytes(self.payload[placement.offset : end]))


def write_container(header: dict[str, Any], payload: bytes) -> bytes:
    """Return the file of a header and a payload; equal input gives equal bytes."""
    text = json.dumps(header, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    stream = shrink(text, _HEADER_CODERS[1:])
    lengths = len(stream.payload).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    before = MAGIC + bytes([VERSION])
    after = bytes([_HEADER_CODERS.index(stream.coder)]) + lengths + stream.payload + payload
    return before + hashlib.sha256(before + after).digest() + after


def read_file(path: Path) -> bytes:
    """Return a whole file that begins like an artifact; ArtifactError otherwise."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            frame = stream.read(FRAME_BYTES)
            _check_frame(frame, size)
            return frame + stream.read(size - len(frame))
    except OSError as error:
        raise ArtifactError(f"cannot read '{path}': {error.strerror}") from None
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' {error}") from None


def read_container(data: bytes) -> Container:
    """Take a file apart.

    Raises ArtifactError if it is foreign, cut, altered, or has no JSON object as its header.
    """
    _check_frame(data, len(data))
    digest = hashlib.sha256(data[: _DIGEST.start])
    digest.update(memoryview(data)[_DIGEST.stop :])
    if digest.digest() != data[_DIGEST]:
        raise ArtifactError("is damaged: its SHA-256 does not match; fetch or pack it again")
    stored, length = (int.from_bytes(data[i : i + 4], "little") for i in (41, 45))
    end = FRAME_BYTES + stored
    if data[40] >= len(_HEADER_CODERS) or length > _LARGEST_HEADER or end > len(data):
        raise ArtifactError("is damaged: impossible header length or coder")
    text = expand(Stream(_HEADER_CODERS[data[40]], data[FRAME_BYTES:end]), length)
    return Container(_parse(text), memoryview(data)[end:], end)


def check_version(beginning: bytes) -> None:
    """Raise ArtifactError if what begins like an artifact is of a format that is not read here."""
    version = beginning[len(MAGIC) : len(MAGIC) + 1]
    if beginning.startswith(MAGIC) and version not in (b"", bytes([VERSION])):
        raise ArtifactError(
            f"has format version {version[0]}, this program reads version {VERSION}; "
            "pack the run again, or use the parbyte that wrote it"
        )


def check_tiling(placements: Sequence[Placement], num_bytes: int) -> None:
    """Check that streams fill the payload: inside the file, no overlap, no gap."""
    position = 0
    for placement in sorted(placements, key=lambda p: (p.offset, p.length)):
        if placement.offset != position:
            kind = "overlap" if placement.offset < position else "leave a gap"
            raise ArtifactError(f"is damaged: streams {kind} at byte {position:,} of the payload")
        position += placement.length
    if position != num_bytes:
        raise ArtifactError(
            f"is damaged: streams take {position:,} bytes, the payload has {num_bytes:,}"
        )


def _check_frame(frame: bytes, size: int) -> None:
    if frame[: len(MAGIC)] != MAGIC:
        raise ArtifactError("is no parbyte artifact")
    check_version(frame)
    if not FRAME_BYTES <= size <= _LARGEST_FILE:
        raise ArtifactError(f"is damaged: {size:,} bytes is no possible size")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_number,
            parse_float=_finite,
        )
        # A lone surrogate is valid JSON, but nothing that could be printed.
        json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"is damaged: its header is no JSON ({str(error)[:80]})") from None
    if not isinstance(header, dict):
        raise ArtifactError("is damaged: its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)
