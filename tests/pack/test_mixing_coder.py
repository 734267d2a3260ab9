"""pack.mixing_coder: round trip, size against entropy and compressors, hostile words."""

import lzma

import brotli
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parbyte.pack.mixing_coder import decode_mixed, encode_mixed

GOLDEN = "0426033f8c5b20d9838f49c402f43b888e7d2028d6f4d3088d95bf7ddc7d8b1e3e"
TABLES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 255)
)


def gaussian_codes(rows: int, columns: int, step: float, spread: float = 0.0) -> np.ndarray:
    """Codes of a step in deviations; `spread`: of the logarithm of the columns' deviations."""
    generator = np.random.default_rng(0)
    scale = np.exp(spread * generator.normal(size=columns))
    codes = np.round(generator.normal(size=(rows, columns)) * scale / step)
    return (np.clip(codes, -127, 127) + 127).astype(np.uint8)


def entropy_bytes(table: np.ndarray) -> float:
    counts = np.bincount(table.ravel())
    share = counts[counts > 0] / table.size
    return float(-(share * np.log2(share)).sum()) * table.size / 8


@given(TABLES)
@settings(deadline=None, max_examples=50)
def test_any_table_comes_back(table: np.ndarray) -> None:
    assert np.array_equal(decode_mixed(encode_mixed(table), *table.shape), table)


@pytest.mark.parametrize("symbol", [0, 7, 255])
def test_a_table_of_one_symbol_takes_a_few_bytes(symbol: int) -> None:
    table = np.full((500, 64), symbol, np.uint8)
    payload = encode_mixed(table)
    assert len(payload) <= 24
    assert np.array_equal(decode_mixed(payload, 500, 64), table)


@pytest.mark.parametrize("step", [0.2, 0.45, 0.9, 1.6])
@pytest.mark.parametrize("shape", [(100, 100), (288, 96)])
def test_noise_takes_hardly_more_than_its_entropy_and_less_than_compressors_make_of_it(
    step: float, shape: tuple[int, int]
) -> None:
    table = gaussian_codes(*shape, step)
    size = len(encode_mixed(table))
    assert size < 1.006 * entropy_bytes(table)
    content = table.tobytes()
    assert size < len(brotli.compress(content, quality=11))
    assert size < len(zstandard.compress(content, 22))
    assert size < len(lzma.compress(content, preset=9))


def test_columns_of_different_spread_cost_less_than_the_order_0_entropy() -> None:
    table = gaussian_codes(1000, 64, 0.45, spread=0.4)
    assert len(encode_mixed(table)) < 0.97 * entropy_bytes(table)
    assert len(encode_mixed(np.ascontiguousarray(table.T))) < 0.97 * entropy_bytes(table)


def test_columns_whose_mean_is_not_zero_cost_less() -> None:
    table = gaussian_codes(1000, 64, 1.0)
    shifted = table + np.where(np.arange(64) % 2, 2, 254).astype(np.uint8)
    assert len(encode_mixed(shifted)) < 0.93 * entropy_bytes(shifted)


def test_the_coded_bytes_are_those_of_format_version_2() -> None:
    table = (np.arange(60, dtype=np.uint8).reshape(12, 5) ** 2) % 11
    assert encode_mixed(table).hex() == GOLDEN


@given(st.binary(max_size=80), st.integers(1, 60), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_foreign_bytes_decode_to_something_or_are_refused(
    payload: bytes, rows: int, columns: int
) -> None:
    try:
        table = decode_mixed(payload, rows, columns)
    except ValueError:
        return
    assert table.shape == (rows, columns)
