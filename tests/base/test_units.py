"""Nats, bits, bytes and seconds are converted in one place, and by the definitions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import RecipeError
from parbyte.base.units import (
    bits_per_byte,
    coded_bits_per_byte,
    format_bytes,
    nats_to_bits,
    parse_seconds,
    parse_size,
)


def test_one_fair_coin_is_one_bit() -> None:
    assert nats_to_bits(-math.log(0.5)) == pytest.approx(1.0, abs=1e-15)


def test_uniform_bytes_cost_eight_bits_a_byte() -> None:
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8.0, abs=1e-12)


def test_a_bitstream_as_long_as_its_text_is_eight_bits_a_byte() -> None:
    assert coded_bits_per_byte(1000, 1000) == 8.0
    assert coded_bits_per_byte(125, 1000) == 1.0


def test_no_text_has_no_finite_rate() -> None:
    assert bits_per_byte(1.0, 0) == math.inf and coded_bits_per_byte(1, 0) == math.inf


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (16_000_000, 16_000_000),
        ("16_000_000", 16_000_000),
        ("16,000,000", 16_000_000),
        ("16 MB", 16_000_000),
        ("16mb", 16_000_000),
        ("400 KB", 400_000),
        ("1 MiB", 1_048_576),
        ("2 GiB", 2_147_483_648),
        ("1.5 kB", 1_500),
        ("  7 b ", 7),
        ("0", 0),
    ],
)
def test_sizes_are_decimal_unless_written_binary(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (180, 180.0),
        (0.5, 0.5),
        ("180", 180.0),
        ("180 s", 180.0),
        ("10 min", 600.0),
        ("2h", 7200.0),
        ("250 ms", 0.25),
        ("1.5 m", 90.0),
    ],
)
def test_durations_carry_their_unit(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "MB", "-1 KB", "1 XB", "1 e3", "1..2", "ten", "1 MB 2", True, "9" * 400]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a size such as"):
        parse_size(text)


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 10**400])
def test_what_is_not_finite_is_no_size_and_no_duration(value: float) -> None:
    with pytest.raises(RecipeError):
        parse_size(value)  # type: ignore[arg-type]
    with pytest.raises(RecipeError):
        parse_seconds(value)


@pytest.mark.parametrize("text", ["", "s", "-1 s", "1 day", "1:30", False])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a duration such as"):
        parse_seconds(text)


@given(st.integers(0, 2**50))
def test_a_printed_size_reads_back_equal(size: int) -> None:
    assert parse_size(format_bytes(size).removesuffix(" bytes")) == size
