"""pack.tensors: codes, scales and float16 values through streams."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, shrink
from parbyte.pack.tensors import (
    CodeStreams,
    Layout,
    expand_codes,
    expand_floats,
    shrink_codes,
    shrink_floats,
)
from parbyte.quant.grid import Codes, max_code

CODERS = ("range", "zstd", "lzma", "brotli")


def random_codes(shape: tuple[int, ...], bits: int, seed: int = 0) -> Codes:
    generator = np.random.default_rng(seed)
    limit = max_code(bits)
    codes = np.clip(np.round(generator.normal(size=shape) * limit / 4), -limit, limit)
    scale = np.asarray(np.exp(generator.normal(size=shape[:-1])), np.float16)
    return Codes(torch.from_numpy(codes.astype(np.int8)), torch.from_numpy(scale), bits)


def equal(a: Codes, b: Codes) -> bool:
    return (
        torch.equal(a.codes, b.codes)
        and torch.equal(a.scale, b.scale)
        and a.bits == b.bits
        and (a.codes.dtype, a.scale.dtype) == (b.codes.dtype, b.scale.dtype)
    )


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (1, 9), (9, 1), (3, 8, 8), (2100,)])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_codes_of_any_shape_come_back(shape: tuple[int, ...], bits: int) -> None:
    codes = random_codes(shape, bits)
    assert equal(expand_codes(shrink_codes(codes, CODERS), codes), codes)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_given_layout_is_kept(coder: str, transposed: bool) -> None:
    codes = random_codes((64, 32), 4)
    streams = shrink_codes(codes, CODERS, Layout(coder, transposed))
    assert streams.layout == Layout(coder, transposed)
    assert equal(expand_codes(streams, codes), codes)


@pytest.mark.parametrize("coders", [("range",), ("brotli",), CODERS])
def test_the_layout_with_more_structure_is_chosen(coders: tuple[str, ...]) -> None:
    generator = np.random.default_rng(0)
    spread = np.exp(0.8 * generator.normal(size=(1, 96)))
    codes = np.clip(np.round(generator.normal(size=(96, 96)) * 4 * spread), -127, 127)
    scale = torch.ones(96).half()
    by_columns = Codes(torch.from_numpy(codes.astype(np.int8)), scale, 8)
    by_rows = Codes(by_columns.codes.T.contiguous(), scale, 8)
    layouts = [shrink_codes(c, coders).layout.transposed for c in (by_columns, by_rows)]
    assert layouts == ([False, True] if "range" in coders else [True, False])


@given(
    hnp.arrays(
        np.float16,
        st.integers(1, 60),
        elements=st.floats(2.0**-24, 65504, width=16, allow_subnormal=True),
    ),
    st.integers(0, 10),
)
def test_any_positive_scales_come_back(scale: np.ndarray, digits: int) -> None:
    kept = (scale.view(np.uint16) & np.uint16(0xFFFF << (10 - digits) & 0xFFFF)).view(np.float16)
    kept = np.where(kept > 0, kept, np.float16(2.0**-24))
    codes = Codes(torch.zeros(len(scale), 3, dtype=torch.int8), torch.from_numpy(kept), 4)
    assert equal(expand_codes(shrink_codes(codes, CODERS), codes), codes)


def test_scales_of_few_digits_take_less_than_a_byte_each() -> None:
    generator = np.random.default_rng(0)
    exact = np.exp(0.3 * generator.normal(size=4000)).astype(np.float16)
    coarse = (exact.view(np.uint16) & np.uint16(0xFF80)).view(np.float16)
    codes = Codes(torch.zeros(4000, 2, dtype=torch.int8), torch.from_numpy(coarse), 4)
    assert len(shrink_codes(codes, CODERS).scale.payload) < 0.6 * 4000


def test_float16_tensors_come_back_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3,), (2, 5), (), (1,)]
    tensors = [torch.randn(shape, generator=generator).half() for shape in shapes]
    restored = expand_floats(shrink_floats(tensors, CODERS), shapes)
    assert all(torch.equal(a, b) for a, b in zip(tensors, restored, strict=True))
    assert expand_floats(shrink_floats([], CODERS), []) == []


def test_codes_beyond_their_grid_are_refused() -> None:
    streams = shrink_codes(random_codes((8, 8), 8), CODERS)
    with pytest.raises(ArtifactError, match="outside its 3-bit grid"):
        expand_codes(streams, random_codes((8, 8), 3))


@pytest.mark.parametrize("bits", [0x7C00, 0x7E01, 0x0000, 0x8001, 0xFC00])
def test_scales_that_are_no_positive_numbers_are_refused(bits: int) -> None:
    good = shrink_codes(random_codes((4, 8), 4), CODERS)
    for payload in (
        bytes([0]) + bits.to_bytes(2, "little") + b"\0" * 4,
        bytes([255, 0, 0]) + bytes([bits & 255] * 4 + [bits >> 8] * 4),
    ):
        bad = CodeStreams(good.layout, good.codes, Stream("raw", payload))
        with pytest.raises(ArtifactError, match="scale is NaN, infinite or not positive"):
            expand_codes(bad, random_codes((4, 8), 4))


@pytest.mark.parametrize("payload", [b"", b"\0\0", b"\x10\1\0\1\1\1\1", b"\x0f\xff\xff\1\1\1\1"])
def test_damaged_scales_are_refused(payload: bytes) -> None:
    good = shrink_codes(random_codes((4, 8), 4), CODERS)
    with pytest.raises(ArtifactError):
        bad = CodeStreams(good.layout, good.codes, Stream("raw", payload))
        expand_codes(bad, random_codes((4, 8), 4))


def test_float16_values_that_are_no_numbers_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        content = np.array([1.0, value], "<f2").view(np.uint8).reshape(-1, 2).T.tobytes()
        with pytest.raises(ArtifactError, match="NaN or infinite"):
            expand_floats(shrink(content, CODERS), [(2,)])
