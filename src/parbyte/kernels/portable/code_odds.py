"""The odds of each bit of Gaussian numbers: what the coder of tables knows before it begins.

A number is a path through a tree of bits (see code_mixer); nodes 0 to 7 tell its length in unary,
one tells its sign, the rest its lower bits. Shapes: K classes of mean size, N nodes.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp

SIZE_UNIT = 256
"""Mean sizes are told in 1/256."""
BIT_LENGTHS = 8
SIGN_NODE, FIRST_LOW_NODE = 15, 16
NUM_NODES = FIRST_LOW_NODE + (BIT_LENGTHS + 1) * 128
NUM_CLASSES = 64
"""Four an octave of the mean size, from 1/256 to 256."""
_LARGEST = 255
_HALF = np.float32(0.5)

Floats = NDArray[np.float32]


@compiled(is_entry=True)
def gaussian_odds() -> Floats:
    """Return for each class the odds of a 1 at every node, for Gaussian numbers of that size."""
    odds_NK = np.full((NUM_NODES, NUM_CLASSES), _HALF, np.float32)
    mass = np.empty(_LARGEST + 1, np.float64)
    for k in range(NUM_CLASSES):
        wanted = (4.5 + k % 4) / 4.0 * 2.0 ** (k // 4) / SIZE_UNIT
        small, large = 0.05, 400.0
        for _ in range(20):
            middle = np.sqrt(small * large)
            if _fill_masses_(mass, middle) < wanted:
                small = middle
            else:
                large = middle
        rest = mass.sum()
        for length in range(BIT_LENGTHS):
            first = 1 << length >> 1
            told = _between(mass, first, 1 << length)
            odds_NK[length, k] = _odds(rest - told, rest)
            rest -= told
        for length in range(2, BIT_LENGTHS + 1):
            for prefix in range(1, 1 << (length - 1)):
                span = 1 << (length - 1)
                while (prefix * span) >> (length - 1) > 1:
                    span >>= 1
                start = prefix * span
                whole = _between(mass, start, start + span)
                node = FIRST_LOW_NODE + length * 128 + prefix
                odds_NK[node, k] = _odds(_between(mass, start + span // 2, start + span), whole)
    return odds_NK


@compiled(is_lean=True)
def _fill_masses_(mass: NDArray[np.float64], deviation: float) -> float:
    """Write how often each size occurs among rounded Gaussian numbers; return the mean size."""
    total, mean = 0.0, 0.0
    for size in range(_LARGEST + 1):
        mass[size] = 0.0
        for j in range(4):
            x = (size + (j - 1.5) / 4.0) / deviation
            mass[size] += exp(np.float32(-0.5 * x * x)) * (2.0 if size else 1.0)
        total += mass[size]
        mean += size * mass[size]
    return mean / total


@compiled(is_lean=True)
def _between(mass: NDArray[np.float64], start: int, stop: int) -> float:
    total = 0.0
    for size in range(start, stop):
        total += mass[size]
    return total


@compiled(is_lean=True)
def _odds(part: float, whole: float) -> np.float32:
    """Return part / whole, kept away from 0 and 1, and one half where nothing is known."""
    return np.float32((max(part, 0.0) + 1e-4 * whole + 1e-10) / (whole * 1.0002 + 2e-10))
