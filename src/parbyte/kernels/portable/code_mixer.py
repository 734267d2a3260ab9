"""Code a table of small signed whole numbers bit by bit, each bit's odds mixed from four opinions.

A number is its length in binary (0 for 0), told in unary, then its lower bits, then its sign: a
path through a tree, and every node of the tree has odds of its own. An opinion is a set of odds
chosen by a class: how large the numbers of this column, this row, both, and the neighbours have
been so far. The odds of a class begin as those of Gaussian numbers of that size, so that little has
to be learned, and follow the numbers from there. A mixer weighs the opinions in the logistic
domain and learns from every bit; what it says goes to a binary range coder.

The arithmetic is on integers or in a fixed order: the same bytes on every machine. Indices are
unsigned where a bit waits for them, which spares the test for negative ones.
Source of the mixing: Mahoney 2005 (PAQ). Shapes: R rows, C columns, K classes, N nodes, I opinions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.bit_coder import SHARE_BITS, BitCoder, finish, new_coder, pass_bit
from parbyte.kernels.portable.code_odds import (
    BIT_LENGTHS,
    FIRST_LOW_NODE,
    NUM_CLASSES,
    NUM_NODES,
    SIGN_NODE,
    SIZE_UNIT,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log

_NUM_OPINIONS = 4
_COLUMN_SEEN, _ROW_SEEN = np.float32(8), np.float32(24)
"""Numbers of usual size that a fresh column or row stands for."""
_SURE = 100  # numbers that the Gaussian odds stand for
_MEMORY = 1500  # numbers that the odds remember
_SIGN_CLASSES = 15
_ODDS_BITS, _STRETCH_BITS, _RATE_BITS = 28, 12, 16
_TO_STRETCH = np.uint64(_ODDS_BITS - _STRETCH_BITS)
_LOGIT = 256
"""A logit of 1."""
_STEEPEST = 11 * _LOGIT
_WEIGHT_BITS = 20
_LEARN_BITS = 13  # so that a weight moves by 1/512 of logit times error
_QUARTER_BITS, _FIRST_QUARTER = 21, 4 * (127 - 8)  # of a float32: the octave of 1/256
_ONE, _HALF, _UNIT = np.float32(1), np.float32(0.5), np.float32(1 / SIZE_UNIT)
_NEAR, _FAR = np.float32(1 / 18), np.float32(12 / 18)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Indices = NDArray[np.uint64]


class _Mixer(NamedTuple):
    """What has been learned: odds and how often they were met, weights; and three fixed tables."""

    odds_INK: NDArray[np.uint32]
    met_INK: NDArray[np.uint16]
    weight_NI: Ints
    stretch: Ints
    squash: Ints
    rate: Ints


class _Seen(NamedTuple):
    """Sums over what has been coded of each column; even and odd rows, two places to the right."""

    size_C: NDArray[np.int64]
    sign_C: NDArray[np.int64]
    near_2C: NDArray[np.int64]
    inverse_C: Floats


@compiled(is_entry=True)
def code_table(
    table_RC: NDArray[np.int16],
    usual: int,
    odds_NK: Floats,
    data: NDArray[np.uint8],
    decoding: bool,
) -> np.int64:
    """Write the table's bytes into data, or read the table from them; return how many there are.

    usual: mean size of a number in 1/256, at least 1, which the decoder must be told. odds_NK: of
    `code_odds.gaussian_odds`. Every number must lie within +-255, and data must have room: 16 bits
    for each of a number's 16 bits, and SPARE_BYTES. Bytes beyond its end read as zero.
    """
    coder, mean = new_coder(data, decoding), np.float32(usual) * _UNIT
    class_I = np.empty(_NUM_OPINIONS, np.uint64)
    _code_rows(table_RC, mean, _new_seen(table_RC.shape[1]), class_I, _new_mixer(odds_NK), coder)
    return np.int64(0) if decoding else finish(coder)


@compiled(is_lean=True)
def _code_rows(
    table_RC: NDArray[np.int16],
    mean: np.float32,
    seen: _Seen,
    class_I: Indices,
    mixer: _Mixer,
    coder: BitCoder,
) -> None:
    num_rows, num_columns = table_RC.shape
    for r in range(num_rows):
        row_size, row_sign = 0, 0
        per_number = _ONE / (np.float32(r) + _COLUMN_SEEN)
        per_sign = np.float32(_SIGN_CLASSES) / np.float32(2 * r + 1)
        for c in range(num_columns):
            _classes_of_size_(r, c, row_size, mean, per_number, seen, class_I)
            size = abs(np.int64(table_RC[r, c]))
            length = _code_length(size, class_I, mixer, coder)
            number = np.int64(0)
            if length:
                number = _code_low_bits(size, length, class_I, mixer, coder)
                _classes_of_sign_(r, c, row_sign, length, per_sign, seen, class_I)
                if _code_bit(np.int64(table_RC[r, c] < 0), SIGN_NODE, class_I, mixer, coder):
                    number = -number
            table_RC[r, c] = number
            seen.near_2C[r & 1, c + 2] = number
            row_size += abs(number)
            row_sign += _sign(number)
            seen.size_C[c] += abs(number)
            seen.sign_C[c] += _sign(number)


@compiled(is_lean=True)
def _classes_of_size_(
    r: int,
    c: int,
    row_size: int,
    mean: np.float32,
    per_number: np.float32,
    seen: _Seen,
    class_I: Indices,
) -> None:
    """Choose the classes by which lengths and lower bits are told."""
    row_C, above_C = seen.near_2C[r & 1], seen.near_2C[1 - (r & 1)]
    by_column = (np.float32(seen.size_C[c]) + _COLUMN_SEEN * mean) * per_number
    by_row = (np.float32(row_size) + _ROW_SEEN * mean) * seen.inverse_C[c]
    near = 2 * (abs(row_C[c + 1]) + abs(above_C[c + 2])) + abs(row_C[c]) + abs(above_C[c + 3])
    class_I[0] = _class_of(by_column)
    class_I[1] = _class_of(by_row)
    class_I[2] = _class_of(by_column * by_row / mean)
    class_I[3] = _class_of(np.float32(near) * _NEAR + by_column * _FAR)


@compiled(is_lean=True)
def _classes_of_sign_(
    r: int,
    c: int,
    row_sign: int,
    length: int,
    per_sign: np.float32,
    seen: _Seen,
    class_I: Indices,
) -> None:
    """Choose the classes by which a sign is told: balance of column and row, and neighbours."""
    row_C, above_C = seen.near_2C[r & 1], seen.near_2C[1 - (r & 1)]
    by_column = np.int64((np.float32(seen.sign_C[c] + r) + _HALF) * per_sign)
    by_row = (np.float32(row_sign + c) + _HALF) * np.float32(_SIGN_CLASSES)
    class_I[0] = by_column
    class_I[1] = np.int64(by_row / np.float32(2 * c + 1))
    class_I[2] = 3 * _sign(row_C[c + 1]) + _sign(above_C[c + 2]) + 4
    class_I[3] = _SIGN_CLASSES * min(length, 3) + by_column


@compiled(is_lean=True)
def _code_length(size: int, class_I: Indices, mixer: _Mixer, coder: BitCoder) -> int:
    """Code how many binary digits a size has, in unary."""
    length = 0
    while length < BIT_LENGTHS:
        if not _code_bit(np.int64(size >> length > 0), length, class_I, mixer, coder):
            break
        length += 1
    return length


@compiled(is_lean=True)
def _code_low_bits(size: int, length: int, class_I: Indices, mixer: _Mixer, coder: BitCoder) -> int:
    """Code the binary digits of a size below its first one; return the size."""
    prefix = 1
    for place in range(length - 2, -1, -1):
        node = FIRST_LOW_NODE + length * 128 + prefix
        prefix = 2 * prefix + _code_bit((size >> place) & 1, node, class_I, mixer, coder)
    return prefix


@compiled(is_lean=True)
def _code_bit(bit: int, node: int, class_I: Indices, mixer: _Mixer, coder: BitCoder) -> int:
    """Code one bit, or read it, and let odds and weights learn it."""
    weight_I = mixer.weight_NI[node]
    dot = 0
    for i in range(_NUM_OPINIONS):
        odds = np.uint64(mixer.odds_INK[i, node, class_I[i]])
        dot += weight_I[i] * mixer.stretch[odds >> _TO_STRETCH]
    logit = min(max(dot >> _WEIGHT_BITS, -_STEEPEST), _STEEPEST)
    share = np.int64(mixer.squash[np.uint64(logit + _STEEPEST)])
    bit = pass_bit(bit, share, coder)
    wrong = (bit << SHARE_BITS) - share
    for i in range(_NUM_OPINIONS):
        k = class_I[i]
        odds, met = np.uint64(mixer.odds_INK[i, node, k]), np.uint64(mixer.met_INK[i, node, k])
        weight_I[i] += (wrong * mixer.stretch[odds >> _TO_STRETCH]) >> _LEARN_BITS
        missing = (bit << _ODDS_BITS) - np.int64(odds)
        moved = np.int64(odds) + ((missing * mixer.rate[met]) >> _RATE_BITS)
        mixer.odds_INK[i, node, k] = moved
        mixer.met_INK[i, node, k] = min(np.int64(met) + 1, _MEMORY)
    return bit


@compiled(is_lean=True)
def _class_of(size: np.float32) -> int:
    """Return the class of a mean size: its octave from 1/256 on, and its next two binary digits."""
    quarters = int(np.float32(size).view(np.int32) >> _QUARTER_BITS)
    return min(max(quarters - _FIRST_QUARTER, 0), NUM_CLASSES - 1)


@compiled(is_lean=True)
def _sign(number: int) -> int:
    return int(number > 0) - int(number < 0)


@compiled()
def _new_seen(num_columns: int) -> _Seen:
    inverse_C = np.empty(num_columns, np.float32)
    for c in range(num_columns):
        inverse_C[c] = _ONE / (np.float32(c) + _ROW_SEEN)
    return _Seen(
        np.zeros(num_columns, np.int64),
        np.zeros(num_columns, np.int64),
        np.zeros((2, num_columns + 3), np.int64),
        inverse_C,
    )


@compiled()
def _new_mixer(gaussian_NK: Floats) -> _Mixer:
    shape = (_NUM_OPINIONS, NUM_NODES, NUM_CLASSES)
    odds_INK = np.empty(shape, np.uint32)
    for node in range(NUM_NODES):
        for k in range(NUM_CLASSES):
            odds = gaussian_NK[node, k] * np.float32(1 << _ODDS_BITS)
            odds_INK[:, node, k] = np.uint32(odds)
    stretch = np.empty(1 << _STRETCH_BITS, np.int32)
    for j in range(1 << _STRETCH_BITS):
        odds = (j + 0.5) / (1 << _STRETCH_BITS)
        stretch[j] = np.int32(np.round(_LOGIT * log(odds / (1.0 - odds))))
    squash = np.empty(2 * _STEEPEST + 1, np.int32)
    for j in range(2 * _STEEPEST + 1):
        others = _ONE + exp(np.float32(_STEEPEST - j) / np.float32(_LOGIT))
        squash[j] = min(max(np.int32(np.float32(1 << SHARE_BITS) / others), 1), 65535)
    rate = np.empty(_MEMORY + 1, np.int32)
    for met in range(_MEMORY + 1):
        rate[met] = np.int32((1 << _RATE_BITS) / (met + 1.5))
    fair = (1 << _WEIGHT_BITS) // _NUM_OPINIONS
    weight_NI = np.full((NUM_NODES, _NUM_OPINIONS), fair, np.int32)
    return _Mixer(odds_INK, np.full(shape, _SURE, np.uint16), weight_NI, stretch, squash, rate)
