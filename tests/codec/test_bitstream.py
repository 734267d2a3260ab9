"""The format is small, and every damage to it is noticed before anything is decoded."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import BitstreamError
from parbyte.codec.bitstream import BitstreamReader, BitstreamWriter, Frame, Header, digest_text

HEADER = Header(bytes(range(16)), bytes(range(8)), "torch", "cpu", 2, b"abcd")
digests_of_text = st.binary(max_size=9).map(digest_text)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    lengths = draw(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=20))
    continues = tuple(draw(st.booleans()) for _ in lengths)
    size, digest = draw(st.integers(0, 1 << 30)), draw(digests_of_text)
    return Frame(size, digest, tuple(lengths), continues, draw(st.binary(max_size=300)))


def write(header: Header, parts: list[Frame]) -> bytes:
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, header)
    for frame in parts:
        writer.write(frame)
    writer.close()
    assert writer.num_bytes == len(stream.getvalue())
    return stream.getvalue()


def read(data: bytes) -> tuple[Header, list[Frame]]:
    reader = BitstreamReader(io.BytesIO(data))
    return reader.header, list(reader.frames())


SMALL = [
    Frame(300, digest_text(b"one"), (70, 0, 1000), (False, True, True), b"0123456789ab"),
    Frame(5, digest_text(b"two"), (2,), (False,), b"wxyz"),
]


@given(st.lists(frames(), max_size=4), st.integers(1, 256))
def test_what_is_written_is_read(parts: list[Frame], threads: int) -> None:
    header = Header(bytes(16), b"tokenize", "torch", "cuda", threads, b"mach")
    assert read(write(header, parts)) == (header, parts)


def test_one_frame_costs_few_bytes() -> None:
    lanes = Frame(438_000, digest_text(b""), (12_500,) * 8, (False,) * 8, bytes(80_000))
    assert len(write(HEADER, [lanes])) - 80_000 <= 85


def test_every_damaged_byte_is_noticed() -> None:
    data = write(HEADER, SMALL)
    for place in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(BitstreamError):
                read(bytes(damaged))


def test_every_cut_is_noticed() -> None:
    data = write(HEADER, SMALL)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            read(data[:length])


@given(st.binary(min_size=1, max_size=50))
def test_bytes_behind_the_end_are_noticed(rest: bytes) -> None:
    with pytest.raises(BitstreamError, match="behind the end"):
        read(write(HEADER, SMALL) + rest)


def test_frames_cannot_be_exchanged_dropped_or_doubled() -> None:
    head = len(write(HEADER, [])) - 1
    first = len(write(HEADER, SMALL[:1])) - 1
    data = write(HEADER, SMALL)
    begin, one, two, end = data[:head], data[head:first], data[first:-1], data[-1:]
    assert begin + one + two + end == data
    for shuffled in (begin + two + one + end, begin + two + end, begin + one + one + two + end):
        with pytest.raises(BitstreamError):
            read(shuffled)


@given(st.binary(max_size=200))
def test_foreign_files_are_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        read(data)
    with pytest.raises(BitstreamError):
        read(write(HEADER, [])[:-1] + b"\x01" + data)


def test_a_later_format_is_named() -> None:
    data = bytearray(write(HEADER, SMALL))
    data[4] = 9
    with pytest.raises(BitstreamError, match="format 9"):
        read(bytes(data))


def test_the_bytes_are_part_of_the_format() -> None:
    expected = (
        "5042594201000102030405060708090a0b0c0d0e0f0001020304050607000002"
        "61626364d367dfa101050002043fc4ccfe745870e2a8abbbfd7778797a00"
    )
    assert write(HEADER, SMALL[1:]).hex() == expected


TURNING = Header(bytes(range(16)), bytes(range(8)), "torch", "cuda", 1, b"abcd", turns=2)
CHECKED = Frame(5, digest_text(b"two"), (2, 1), (False, True), b"wxyz", (1, 0xFFFFFFFE))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=9))
def test_checks_are_read_as_written(checks: list[int]) -> None:
    frame = replace(CHECKED, checks=tuple(checks))
    assert read(write(TURNING, [frame, CHECKED])) == (TURNING, [frame, CHECKED])


def test_every_damaged_byte_is_noticed_with_checks_too() -> None:
    data = write(TURNING, [CHECKED])
    for place in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(BitstreamError):
                read(bytes(damaged))


def test_the_bytes_with_turns_are_part_of_the_format() -> None:
    expected = (
        "5042594204000102030405060708090a0b0c0d0e0f000102030405060700010102"
        "6162636463e2d9c80205020201043fc4ccfe745870e20201000000feffffff83eb22997778797a00"
    )
    assert write(TURNING, [CHECKED]).hex() == expected
