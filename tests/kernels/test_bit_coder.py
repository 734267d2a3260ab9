"""kernels.portable.bit_coder: every bit comes back, and the bytes are those of exact arithmetic."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parbyte.kernels.portable.bit_coder import SPARE_BYTES, finish, new_coder, pass_bit

SHARES = st.one_of(st.sampled_from([1, 2, 32768, 65534, 65535]), st.integers(1, 65535))
BITS = st.lists(st.tuples(st.integers(0, 1), SHARES), max_size=200)


def coded(bits: list[tuple[int, int]]) -> bytes:
    coder = new_coder(np.zeros(2 * len(bits) + SPARE_BYTES, np.uint8), False)
    for bit, share in bits:
        pass_bit(bit, share, coder)
    return coder.data[: finish(coder)].tobytes()


def decoded(data: bytes, shares: list[int]) -> list[int]:
    coder = new_coder(np.frombuffer(data, np.uint8).copy(), True)
    return [pass_bit(0, share, coder) for share in shares]


def exactly_coded(bits: list[tuple[int, int]]) -> bytes:
    """The same interval in whole numbers without end: no carry, no window."""
    low, span, written = 0, 2**64 - 1, 0
    for bit, share in bits:
        part = (span >> 16) * share
        low, span = (low, part) if bit else (low + part, span - part)
        if span < 2**32:
            low, span, written = low << 32, span << 32, written + 4
    for kept in range(9):
        unit = 2 ** (64 - 8 * kept)
        value = -(-low // unit) * unit
        if value <= low + span - 1:
            return value.to_bytes(written + 8, "big")
    raise AssertionError("the interval is empty")


@given(BITS)
@example([(0, 65535)] * 40)
@example([(1, 1)] * 40)
@settings(deadline=None)
def test_bits_of_any_odds_come_back_from_the_bytes_of_exact_arithmetic(
    bits: list[tuple[int, int]],
) -> None:
    data = coded(bits)
    assert data == exactly_coded(bits)
    for end in (len(data), len(data.rstrip(b"\0"))):
        assert decoded(data[:end], [share for _, share in bits]) == [bit for bit, _ in bits]


def test_a_carry_runs_through_bytes_already_written() -> None:
    coder = new_coder(np.zeros(64, np.uint8), False)
    coder.data[:3] = 1, 255, 255
    coder.state[:] = 2**64 - 6, 2**40, 3
    pass_bit(0, 32768, coder)
    assert coder.data[:3].tolist() == [2, 0, 0]
    assert int(coder.state[0]) == 2**39 - 6


def test_foreign_bytes_are_bits_too() -> None:
    shares = [1, 65535, 300] * 50
    assert set(decoded(b"\xff" * 20, shares)) <= {0, 1}
    assert decoded(b"", [30000] * 10) == [1] * 10
