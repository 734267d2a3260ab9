"""pack.streams: every coder restores, the smallest is chosen, hostile streams are refused."""

import contextlib
import lzma

import brotli
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, expand, shrink

CODERS = ("range", "zstd", "lzma", "brotli")
TEXT = b"In the beginning God created the heaven and the earth. " * 40


def forced(coder: str, content: bytes, num_columns: int = 1) -> Stream:
    """The stream of one coder; the content must be compressible."""
    stream = shrink(content, [coder], num_columns=num_columns)
    assert stream.coder == coder
    return stream


@given(st.binary(max_size=300), st.sampled_from(CODERS), st.integers(1, 7))
def test_any_bytes_come_back(content: bytes, coder: str, num_columns: int) -> None:
    content = content[: len(content) // num_columns * num_columns]
    stream = shrink(content, [coder], num_columns=num_columns)
    assert expand(stream, len(content), num_columns=num_columns) == content
    assert len(stream.payload) <= len(content)


def test_the_smallest_of_all_coders_is_kept() -> None:
    generator = np.random.default_rng(0)
    gaussian = np.round(generator.normal(size=20_000) * 3 + 31).astype(np.uint8).tobytes()
    for content, winner in ((gaussian, "range"), (generator.bytes(999), "raw")):
        streams = [shrink(content, [coder]) for coder in CODERS]
        best = shrink(content, CODERS)
        assert best.coder == winner
        assert len(best.payload) == min(len(stream.payload) for stream in streams)
    assert shrink(TEXT, CODERS).coder in ("zstd", "brotli", "lzma")


@pytest.mark.parametrize("coder", CODERS)
def test_streams_carry_no_headers_that_their_reader_does_not_need(coder: str) -> None:
    generator = np.random.default_rng(1)
    content = (generator.random(4000) < 0.1).astype(np.uint8).tobytes()
    assert len(forced(coder, content).payload) < 0.25 * len(content)
    assert len(forced(coder, b"\0" * 4000).payload) <= 40


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("num_bytes", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 10 * len(TEXT)])
def test_another_length_than_declared_is_refused(coder: str, num_bytes: int) -> None:
    stream = forced(coder, TEXT)
    if coder == "range" and 0 < num_bytes < len(TEXT):
        pytest.skip("a range coder's words have no end of their own")
    try:
        restored = expand(stream, num_bytes)
    except ArtifactError:
        return
    assert coder == "range" and len(restored) == num_bytes


@given(
    st.sampled_from(CODERS),
    st.integers(0, 10_000),
    st.integers(0, 255),
    st.sampled_from(["flip", "cut", "insert"]),
)
def test_a_damaged_stream_is_refused_or_gives_the_declared_length(
    coder: str, position: int, value: int, how: str
) -> None:
    payload = bytearray(forced(coder, TEXT).payload)
    position %= len(payload)
    if how == "flip":
        payload[position] ^= value
    elif how == "cut":
        del payload[position:]
    else:
        payload[position:position] = bytes([value])
    try:
        assert len(expand(Stream(coder, bytes(payload)), len(TEXT))) == len(TEXT)
    except ArtifactError as error:
        assert "\n" not in str(error)


@given(st.sampled_from(CODERS), st.binary(max_size=60), st.integers(0, 2**20))
def test_foreign_bytes_are_refused_or_give_the_declared_length(
    coder: str, payload: bytes, num_bytes: int
) -> None:
    with contextlib.suppress(ArtifactError):
        assert len(expand(Stream(coder, payload), num_bytes)) == num_bytes


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = bytes(50_000_000)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 4096, "lc": 0, "lp": 0, "pb": 0}]
    bombs = {
        "zstd": zstandard.ZstdCompressor(level=1).compress(bomb)[4:],
        "brotli": brotli.compress(bomb, quality=1),
        "lzma": b"\0" + lzma.compress(bomb, format=lzma.FORMAT_RAW, filters=filters),
    }
    for coder, payload in bombs.items():
        with pytest.raises(ArtifactError):
            expand(Stream(coder, payload), 1000)


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(ArtifactError, match="unknown coder 'pickle'"):
        expand(Stream("pickle", b""), 0)
