"""A binary range coder: bits to bytes and back, each bit at the price of its share of the odds.

A span of 64 bits is cut in two for every bit; four bytes leave, or come in, whenever less than 32
bits of it are left. A sum that overflows is carried into the bytes already written. The arithmetic
is on integers: the same bytes on every machine.
Source: Martin 1979, "Range encoding" (Video & Data Recording Conference, Southampton).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled

SHARE_BITS = 16
"""The chance of a 1 is told in 1/65536, from 1 to 65535: a bit never costs more than 16."""
SPARE_BYTES = 16
"""Room that the last interval may take beyond what the bits cost."""
_LOW, _SPAN, _PLACE = 0, 1, 2
_CUT_BITS, _WORD_BITS = np.uint64(SHARE_BITS), np.uint64(32)
_SMALLEST_SPAN = np.uint64(1 << 32)
_EIGHT, _TOP, _ONE, _ZERO = np.uint64(8), np.uint64(56), np.uint64(1), np.uint64(0)


class BitCoder(NamedTuple):
    """The span's low end (decoding: how far the bytes lie above it), span and place; the bytes."""

    state: NDArray[np.uint64]
    data: NDArray[np.uint8]
    decoding: bool


@compiled()
def new_coder(data: NDArray[np.uint8], decoding: bool) -> BitCoder:
    """Return a coder before its first bit. Bytes beyond the end of data read as zero."""
    coder = BitCoder(np.zeros(3, np.uint64), data, decoding)
    coder.state[_SPAN] = ~_ZERO
    if decoding:
        for _ in range(2):
            coder.state[_LOW] = _move_word(coder.state[_LOW], coder)
    return coder


@compiled(is_lean=True)
def pass_bit(bit: int, share: int, coder: BitCoder) -> int:
    """Write a bit whose chance to be 1 is share / 65536, or read it; return it."""
    state = coder.state
    low, span = state[_LOW], state[_SPAN]
    part = (span >> _CUT_BITS) * np.uint64(share)
    if coder.decoding:
        bit = int(low < part)
    if bit:
        span = part
    else:
        span -= part
        if coder.decoding:
            low -= part
        else:
            low += part
            if low < part:
                _carry_(coder)
    if span < _SMALLEST_SPAN:
        low, span = _move_word(low, coder), span << _WORD_BITS
    state[_LOW], state[_SPAN] = low, span
    return bit


@compiled(is_lean=True)
def finish(coder: BitCoder) -> np.int64:
    """Write the number of the last interval that ends in most zeros; return how many bytes lie."""
    low, width = coder.state[_LOW], coder.state[_SPAN] - _ONE
    rest, value = ~_ZERO, _ZERO
    while value - low > width:
        rest = rest >> _EIGHT
        value = (low + rest) & ~rest
    if value < low:
        _carry_(coder)
    for _ in range(2):
        value = _move_word(value, coder)
    return np.int64(coder.state[_PLACE])


@compiled(is_lean=True)
def _move_word(low: np.uint64, coder: BitCoder) -> np.uint64:
    """Move the upper four bytes of low to the data, or the next four of the data below it."""
    place = np.int64(coder.state[_PLACE])
    for j in range(place, place + 4):
        if coder.decoding:
            coming = np.uint64(coder.data[j]) if j < len(coder.data) else _ZERO
            low = (low << _EIGHT) | coming
        else:
            coder.data[j] = np.uint8(low >> _TOP)
            low = low << _EIGHT
    coder.state[_PLACE] = np.uint64(place + 4)
    return low


@compiled(is_lean=True)
def _carry_(coder: BitCoder) -> None:
    """Add 1 to the number that was written."""
    place = np.int64(coder.state[_PLACE]) - 1
    while coder.data[place] == 255:
        coder.data[place] = 0
        place -= 1
    coder.data[place] += 1
