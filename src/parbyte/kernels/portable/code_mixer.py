"""Code a table of small signed whole numbers bit by bit, each bit's odds mixed from five opinions.

A number is its length in binary (0 for 0), told in unary, then its sign, then its lower bits: a
path through a tree, and every node of the tree has odds of its own. An opinion is a set of odds
chosen by a class: how large the numbers of this column, this row, both, and the neighbours have
been so far. The odds of a class begin as those of Gaussian numbers of that size, so that little has
to be learned, and follow the numbers from there. A mixer weighs the opinions in the logistic
domain and learns from every bit; what it says goes to a binary range coder.

The arithmetic is on integers or in a fixed order: the same bytes on every machine.
Source of the mixing: Mahoney 2005 (PAQ). Shapes: R rows, C columns, K classes, N nodes, I opinions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log

LARGEST = 255
"""Largest absolute value of a number."""
USUAL_UNIT = 256
"""Mean sizes are whole numbers of 1/256."""
_BIT_LENGTHS = 8
_SIGN_NODE = 15
_FIRST_LOW_NODE = 16
_NUM_NODES = _FIRST_LOW_NODE + (_BIT_LENGTHS + 1) * 128
_NUM_OPINIONS = 5
_NUM_CLASSES = 64  # four an octave of the mean size, from 1/256 to 256
_COLUMN_SEEN, _ROW_SEEN = 8, 24  # numbers of usual size that a fresh column or row stands for
_SURE = 100  # numbers that the Gaussian odds stand for
_MEMORY = 1500  # numbers that the odds remember
_STRETCH_BITS = 12
_MIXER_RATE = np.float32(0.004)
_STEEPEST = np.float32(11.0)
_ONE, _HALF = np.float32(1), np.float32(0.5)
_WORD, _BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFF)
_EIGHT, _TOP = np.uint64(8), np.uint64(24)

Floats = NDArray[np.float32]


class _Mixer(NamedTuple):
    """What has been learned: odds and how often they were met, weights, and two fixed tables."""

    odds_INK: Floats
    met_INK: NDArray[np.uint16]
    weight_NI: Floats
    stretch: Floats
    rate: Floats
    logit_I: Floats


class _Coder(NamedTuple):
    """The binary range coder: low, high, window and place in one array, and the bytes."""

    state: NDArray[np.uint64]
    data: NDArray[np.uint8]
    decoding: bool


class _Table(NamedTuple):
    """Sums over what has been coded of each column; even and odd rows, one place to the right."""

    size_C: NDArray[np.int64]
    sign_C: NDArray[np.int64]
    near_2C: NDArray[np.int64]


@compiled(is_entry=True)
def code_table(
    table_RC: NDArray[np.int16], usual: int, data: NDArray[np.uint8], decoding: bool
) -> np.int64:
    """Write the table's bytes into data, or read the table from them; return how many there are.

    usual: mean size of a number in 1/256, at least 1, which the decoder must be told. Every number
    must lie within +-LARGEST, and data must have room. Bytes beyond its end read as zero.
    """
    num_columns = table_RC.shape[1]
    mixer, coder = _new_mixer(), _new_coder(data, decoding)
    seen = _Table(
        np.zeros(num_columns, np.int64),
        np.zeros(num_columns, np.int64),
        np.zeros((2, num_columns + 2), np.int64),
    )
    class_I = np.empty(_NUM_OPINIONS, np.int64)
    for r in range(len(table_RC)):
        row_size, row_sign = 0, 0
        for c in range(num_columns):
            _classes_of_size(r, c, row_size, usual, seen, class_I)
            length = _code_length(abs(table_RC[r, c]), class_I, mixer, coder)
            number = 0
            if length:
                number = _code_low_bits(abs(table_RC[r, c]), length, class_I, mixer, coder)
                _classes_of_sign(r, c, row_sign, length, seen, class_I)
                if _code_bit(int(table_RC[r, c] < 0), _SIGN_NODE, class_I, mixer, coder):
                    number = -number
            table_RC[r, c] = number
            seen.near_2C[r & 1, c + 1] = number
            row_size += abs(number)
            row_sign += _sign(number)
            seen.size_C[c] += abs(number)
            seen.sign_C[c] += _sign(number)
    return np.int64(coder.state[3]) if decoding else _finish(coder)


@compiled()
def _classes_of_size(
    r: int, c: int, row_size: int, usual: int, seen: _Table, class_I: NDArray[np.int64]
) -> None:
    """Choose the classes by which lengths and lower bits are told."""
    row_C, above_C = seen.near_2C[r & 1], seen.near_2C[(r + 1) & 1]
    by_column = (seen.size_C[c] * USUAL_UNIT + _COLUMN_SEEN * usual) // (r + _COLUMN_SEEN)
    by_row = (row_size * USUAL_UNIT + _ROW_SEEN * usual) // (c + _ROW_SEEN)
    two_left = abs(row_C[c - 1]) if c else 0
    near = 2 * abs(row_C[c]) + two_left + 2 * abs(above_C[c + 1]) + abs(above_C[c + 2])
    class_I[0] = _class_of(by_column)
    class_I[1] = _class_of(by_row)
    class_I[2] = _class_of(by_column * by_row // usual)
    class_I[3] = _class_of((near * USUAL_UNIT + 12 * by_column) // 18)
    class_I[4] = _class_of(usual)


@compiled()
def _classes_of_sign(
    r: int, c: int, row_sign: int, length: int, seen: _Table, class_I: NDArray[np.int64]
) -> None:
    """Choose the classes by which a sign is told: balance of column and row, and neighbours."""
    row_C, above_C = seen.near_2C[r & 1], seen.near_2C[(r + 1) & 1]
    by_column = (seen.sign_C[c] + r) * 15 // (2 * r + 1) if r else 7
    class_I[0] = by_column
    class_I[1] = (row_sign + c) * 15 // (2 * c + 1) if c else 7
    class_I[2] = 3 * _sign(row_C[c]) + _sign(above_C[c + 1]) + 4
    class_I[3] = 15 * min(length, 3) + by_column
    class_I[4] = 0


@compiled()
def _code_length(size: int, class_I: NDArray[np.int64], mixer: _Mixer, coder: _Coder) -> int:
    """Code how many binary digits a size has, in unary."""
    length = 0
    while length < _BIT_LENGTHS:
        if not _code_bit(int(size >> length > 0), length, class_I, mixer, coder):
            break
        length += 1
    return length


@compiled()
def _code_low_bits(
    size: int, length: int, class_I: NDArray[np.int64], mixer: _Mixer, coder: _Coder
) -> int:
    """Code the binary digits of a size below its first one; return the size."""
    prefix = 1
    for place in range(length - 2, -1, -1):
        node = _FIRST_LOW_NODE + length * 128 + prefix
        prefix = 2 * prefix + _code_bit((size >> place) & 1, node, class_I, mixer, coder)
    return prefix


@compiled()
def _code_bit(bit: int, node: int, class_I: NDArray[np.int64], mixer: _Mixer, coder: _Coder) -> int:
    """Code one bit, or read it, and let odds and weights learn it."""
    logit_I = mixer.logit_I
    dot = np.float32(0)
    for i in range(_NUM_OPINIONS):
        odds = mixer.odds_INK[i, node, class_I[i]]
        logit_I[i] = mixer.stretch[int(odds * np.float32(1 << _STRETCH_BITS))]
        dot += mixer.weight_NI[node, i] * logit_I[i]
    mixed = _ONE / (_ONE + exp(-min(max(dot, -_STEEPEST), _STEEPEST)))
    bit = _pass(bit, min(max(int(mixed * np.float32(65536)), 1), 65535), coder)
    wrong = (np.float32(bit) - mixed) * _MIXER_RATE
    for i in range(_NUM_OPINIONS):
        k = class_I[i]
        mixer.weight_NI[node, i] += wrong * logit_I[i]
        met = mixer.met_INK[i, node, k]
        mixer.odds_INK[i, node, k] += (np.float32(bit) - mixer.odds_INK[i, node, k]) * mixer.rate[
            met
        ]
        if met < _MEMORY:
            mixer.met_INK[i, node, k] = met + 1
    return bit


@compiled()
def _pass(bit: int, share: int, coder: _Coder) -> int:
    """Send a bit whose chance to be 1 is share / 65536 through the range coder."""
    state = coder.state
    low, high = state[0], state[1]
    middle = low + ((high - low) >> np.uint64(16)) * np.uint64(share)
    if coder.decoding:
        bit = int(state[2] <= middle)
    if bit:
        high = middle
    else:
        low = middle + np.uint64(1)
    while (low ^ high) >> _TOP == 0:
        place = np.int64(state[3])
        if coder.decoding:
            state[2] = ((state[2] << _EIGHT) & _WORD) | _byte_at(coder.data, place)
        else:
            coder.data[place] = np.uint8(high >> _TOP)
        state[3] += np.uint64(1)
        low = (low << _EIGHT) & _WORD
        high = ((high << _EIGHT) & _WORD) | _BYTE
    state[0], state[1] = low, high
    return bit


@compiled()
def _finish(coder: _Coder) -> np.int64:
    """Write the fewest bytes that, with zeros behind them, lie in the last interval."""
    place, low, high = np.int64(coder.state[3]), coder.state[0], coder.state[1]
    for size in range(1, 5):
        rest = np.uint64((1 << (32 - 8 * size)) - 1)
        value = (low + rest) & ~rest
        if value <= high:
            for j in range(size):
                coder.data[place + j] = np.uint8((value >> np.uint64(24 - 8 * j)) & _BYTE)
            return place + size
    return place


@compiled()
def _new_coder(data: NDArray[np.uint8], decoding: bool) -> _Coder:
    state = np.zeros(4, np.uint64)
    state[1] = _WORD
    if decoding:
        for j in range(4):
            state[2] = (state[2] << _EIGHT) | _byte_at(data, j)
        state[3] = np.uint64(4)
    return _Coder(state, data, decoding)


@compiled()
def _byte_at(data: NDArray[np.uint8], place: int) -> np.uint64:
    return np.uint64(data[place]) if place < len(data) else np.uint64(0)


@compiled()
def _new_mixer() -> _Mixer:
    shape = (_NUM_OPINIONS, _NUM_NODES, _NUM_CLASSES)
    odds_INK = np.empty(shape, np.float32)
    _fill_gaussian_odds_(odds_INK[0])
    for i in range(1, _NUM_OPINIONS):
        odds_INK[i] = odds_INK[0]
    num_steps = 1 << _STRETCH_BITS
    stretch = np.empty(num_steps + 1, np.float32)
    for j in range(num_steps + 1):
        odds = (j + 0.5) / (num_steps + 1.0)
        stretch[j] = np.float32(log(odds / (1.0 - odds)))
    rate = np.empty(_MEMORY + 1, np.float32)
    for met in range(_MEMORY + 1):
        rate[met] = _ONE / np.float32(met + 1.5)
    weight_NI = np.full((_NUM_NODES, _NUM_OPINIONS), _ONE / np.float32(_NUM_OPINIONS), np.float32)
    return _Mixer(
        odds_INK,
        np.full(shape, _SURE, np.uint16),
        weight_NI,
        stretch,
        rate,
        np.empty(_NUM_OPINIONS, np.float32),
    )


@compiled()
def _class_of(mean: int) -> int:
    """Return the class of a mean size in 1/256, at most 255: its octave and its next two digits."""
    mean = max(1, min(mean, 65535))
    octave = 0
    while mean >> (octave + 1):
        octave += 1
    quarter = mean >> (octave - 2) if octave >= 2 else mean << (2 - octave)
    return octave * 4 + (quarter & 3)


@compiled()
def _fill_gaussian_odds_(odds_NK: Floats) -> None:
    """Write for each class the odds of a 1 at every node, for Gaussian numbers of that size."""
    mass = np.empty(LARGEST + 1, np.float64)
    for k in range(_NUM_CLASSES):
        wanted = (4.5 + k % 4) / 4.0 * 2.0 ** (k // 4) / USUAL_UNIT
        small, large = 0.05, 400.0
        for _ in range(20):
            middle = np.sqrt(small * large)
            if _fill_masses_(mass, middle) < wanted:
                small = middle
            else:
                large = middle
        odds_NK[:, k] = _HALF
        rest = mass.sum()
        for length in range(_BIT_LENGTHS):
            first = 1 << length >> 1
            told = _between(mass, first, 1 << length)
            odds_NK[length, k] = _odds(rest - told, rest)
            rest -= told
        for length in range(2, _BIT_LENGTHS + 1):
            for prefix in range(1, 1 << (length - 1)):
                span = 1 << (length - 1)
                while (prefix * span) >> (length - 1) > 1:
                    span >>= 1
                start = prefix * span
                whole = _between(mass, start, start + span)
                node = _FIRST_LOW_NODE + length * 128 + prefix
                odds_NK[node, k] = _odds(_between(mass, start + span // 2, start + span), whole)


@compiled()
def _fill_masses_(mass: NDArray[np.float64], deviation: float) -> float:
    """Write how often each size occurs among rounded Gaussian numbers; return the mean size."""
    total, mean = 0.0, 0.0
    for size in range(LARGEST + 1):
        mass[size] = 0.0
        for j in range(4):
            x = (size + (j - 1.5) / 4.0) / deviation
            mass[size] += exp(np.float32(-0.5 * x * x)) * (2.0 if size else 1.0)
        total += mass[size]
        mean += size * mass[size]
    return mean / total


@compiled()
def _between(mass: NDArray[np.float64], start: int, stop: int) -> float:
    total = 0.0
    for size in range(start, stop):
        total += mass[size]
    return total


@compiled()
def _odds(part: float, whole: float) -> np.float32:
    """Return part / whole, kept away from 0 and 1, and one half where nothing is known."""
    return np.float32((max(part, 0.0) + 1e-4 * whole + 1e-10) / (whole * 1.0002 + 2e-10))


@compiled()
def _sign(number: int) -> int:
    return int(number > 0) - int(number < 0)
