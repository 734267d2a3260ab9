"""pack.range_coder: round trip, size against the entropy, fixed bytes, hostile words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parbyte.pack.range_coder import class_bits_to_try, decode_table, encode_table

GOLDEN = "00040a01e8230d03199f8a343ed07637aeeb2b5b86a879af129c142d63b9a43f74343f28c346ebf6"
TABLES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 255)
)


def gaussian_codes(rows: int, columns: int, spread: float) -> np.ndarray:
    """Codes of a step of 0.45 std; `spread`: of the logarithm of the columns' deviations."""
    generator = np.random.default_rng(0)
    scale = np.exp(spread * generator.normal(size=columns))
    codes = np.round(generator.normal(size=(rows, columns)) * scale / 0.45)
    return (np.clip(codes, -31, 31) + 31).astype(np.uint8)


def entropy_bytes(table: np.ndarray) -> float:
    counts = np.bincount(table.ravel())
    share = counts[counts > 0] / table.size
    return float(-(share * np.log2(share)).sum()) * table.size / 8


@given(TABLES, st.integers(0, 4))
def test_any_table_comes_back(table: np.ndarray, class_bits: int) -> None:
    payload = encode_table(table, class_bits)
    assert np.array_equal(decode_table(payload, *table.shape), table)


@pytest.mark.parametrize("symbol", [0, 7, 255])
def test_a_table_of_one_symbol_takes_a_few_bytes(symbol: int) -> None:
    table = np.full((500, 64), symbol, np.uint8)
    payload = encode_table(table, 0)
    assert len(payload) <= 8
    assert np.array_equal(decode_table(payload, 500, 64), table)


def test_size_is_within_a_percent_of_the_order_0_entropy() -> None:
    table = gaussian_codes(2000, 128, spread=0.0)
    assert len(encode_table(table, 0)) < 1.01 * entropy_bytes(table)


def test_columns_of_different_spread_cost_less_than_the_order_0_entropy() -> None:
    table = gaussian_codes(2000, 128, spread=0.4)
    best = min(len(encode_table(table, bits)) for bits in class_bits_to_try(128))
    assert best < 0.97 * entropy_bytes(table)


def test_more_symbols_than_a_counter_holds_stay_decodable() -> None:
    table = np.zeros((1200, 100), np.uint8)  # 16 * 120,000 exceeds the counters' limit
    table[::7, ::5] = 3
    payload = encode_table(table, 1)
    assert np.array_equal(decode_table(payload, 1200, 100), table)


def test_a_tall_table_whose_blocks_grow_comes_back_near_its_entropy() -> None:
    table = np.random.default_rng(0).binomial(6, 0.5, (200_000, 2)).astype(np.uint8)
    payload = encode_table(table, 1)
    share = np.bincount(table.ravel()) / table.size
    assert len(payload) < 1.001 * float(-(share * np.log2(share)).sum()) * table.size / 8
    assert np.array_equal(decode_table(payload, *table.shape), table)


def test_the_coded_bytes_are_those_of_format_version_2() -> None:
    table = (np.arange(60, dtype=np.uint8).reshape(12, 5) ** 2) % 11
    assert encode_table(table, 1).hex() == GOLDEN


@given(st.binary(max_size=80), st.integers(1, 300), st.integers(1, 20))
def test_foreign_bytes_decode_to_something_or_are_refused(
    payload: bytes, rows: int, columns: int
) -> None:
    try:
        table = decode_table(payload, rows, columns)
    except ValueError:
        return
    assert table.shape == (rows, columns)
