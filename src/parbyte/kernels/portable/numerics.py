"""Exponential, hyperbolic tangent, logarithm, sums and matrix products in a fixed order.

Source of the polynomials: Cephes (expf, tanhf, logf). Shapes: R rows, I inputs, O outputs of one
block, P blocks, N any length.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled

BLOCK = 64
"""Outputs of a matrix that stand side by side in memory."""
MAX_ROWS = 16
"""Rows that pass through a matrix together: each weight is used often, the rows stay near."""
PARTIALS = 16
"""A long sum is 16 sums of every 16th number, then their sum."""

NORM_EPS = np.float32(1e-7)
"""See model.layers."""

_LOWEST = np.float32(-87.0)
"""exp of it is the smallest result: subnormal numbers never arise."""
_HIGHEST = np.float32(88.0)
_LOG2E = np.float32(1.44269504088896341)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUNDER = np.float32(12582912.0)
"""1.5 * 2^23: adding and subtracting it rounds to the nearest whole number."""
_E0, _E1, _E2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
_E3, _E4, _E5 = (
    np.float32(4.1665795894e-2),
    np.float32(1.6666665459e-1),
    np.float32(5.0000001201e-1),
)
_T0, _T1 = np.float32(-5.70498872745e-3), np.float32(2.06390887954e-2)
_T2, _T3, _T4 = (
    np.float32(-5.37397155531e-2),
    np.float32(1.33314422036e-1),
    np.float32(-3.33332819422e-1),
)
_L0, _L1, _L2 = (
    np.float32(7.0376836292e-2),
    np.float32(-1.1514610310e-1),
    np.float32(1.1676998740e-1),
)
_L3, _L4, _L5 = (
    np.float32(-1.2420140846e-1),
    np.float32(1.4249322787e-1),
    np.float32(-1.6668057665e-1),
)
_L6, _L7, _L8 = (
    np.float32(2.0000714765e-1),
    np.float32(-2.4999993993e-1),
    np.float32(3.3333331174e-1),
)
_ROOT_HALF, _HALF = np.float32(0.707106781186547524), np.float32(0.5)
_ZERO, _ONE, _TWO, _BEND = np.float32(0), np.float32(1), np.float32(2), np.float32(0.625)
_EXPONENT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


@compiled(is_lean=True)
def exp(x: np.float32) -> np.float32:
    """Return e^x in float32, x limited to -87 .. 88; off by less than 2e-7 of the result."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    whole = (x * _LOG2E + _ROUNDER) - _ROUNDER
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = ((((_E0 * rest + _E1) * rest + _E2) * rest + _E3) * rest + _E4) * rest + _E5
    near_one = (series * (rest * rest) + rest) + _ONE
    bits = (np.int32(whole) + _EXPONENT_BIAS) << _MANTISSA_BITS
    return near_one * np.int32(bits).view(np.float32)


@compiled(is_lean=True)
def tanh(x: np.float32) -> np.float32:
    """Return the hyperbolic tangent in float32; off by less than 3e-7 of the result."""
    size = -x if x < _ZERO else x
    square = x * x
    series = (((_T0 * square + _T1) * square + _T2) * square + _T3) * square + _T4
    small = series * square * x + x
    large = _ONE - _TWO / (exp(size + size) + _ONE)
    large = -large if x < _ZERO else large
    return small if size < _BEND else large


@compiled(is_lean=True)
def sigmoid(x: np.float32) -> np.float32:
    """Return 1 / (1 + e^-x) in float32."""
    return _ONE / (_ONE + exp(-x))


@compiled(is_lean=True)
def log(x: float) -> float:
    """Return the natural logarithm of a normal positive float64; off by less than 1e-14."""
    exponent = 0.0
    while x > 1.4142135623730951:
        x *= 0.5
        exponent += 1.0
    while x < 0.7071067811865476:
        x *= 2.0
        exponent -= 1.0
    ratio = (x - 1.0) / (x + 1.0)
    square = ratio * ratio
    series = 0.0
    for odd in range(25, 0, -2):
        series = series * square + 1.0 / odd
    return exponent * 0.6931471805599453 + 2.0 * ratio * series


@compiled(is_lean=True)
def log32(x: np.float32) -> np.float32:
    """Return the natural logarithm of a normal positive float32; off by less than 2e-7 absolute or
    of the result.
    """
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> _MANTISSA_BITS) - np.int32(126))
    rest = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    is_low = rest < _ROOT_HALF
    exponent = exponent - _ONE if is_low else exponent
    rest = (rest + rest) - _ONE if is_low else rest - _ONE
    series = ((((_L0 * rest + _L1) * rest + _L2) * rest + _L3) * rest + _L4) * rest + _L5
    series = ((series * rest + _L6) * rest + _L7) * rest + _L8
    square = rest * rest
    small = (series * rest * square + exponent * _LN2_LOW) - _HALF * square
    return (rest + small) + exponent * _LN2_HIGH


@compiled()
def largest(x_N: NDArray[np.float32]) -> np.float32:
    """Return the maximum of at least one number."""
    top = np.empty(PARTIALS, np.float32)
    for j in range(PARTIALS):
        top[j] = x_N[0]
    whole = len(x_N) // PARTIALS * PARTIALS
    for start in range(0, whole, PARTIALS):
        for j in range(PARTIALS):
            top[j] = x_N[start + j] if x_N[start + j] > top[j] else top[j]
    for i in range(whole, len(x_N)):
        top[0] = x_N[i] if x_N[i] > top[0] else top[0]
    result = top[0]
    for j in range(1, PARTIALS):
        result = top[j] if top[j] > result else result
    return result


@compiled()
def total(x_N: NDArray[np.float32]) -> float:
    """Return the sum in float64, in an order that only the length decides."""
    sums = np.empty(PARTIALS, np.float64)
    for j in range(PARTIALS):
        sums[j] = 0.0
    whole = len(x_N) // PARTIALS * PARTIALS
    for start in range(0, whole, PARTIALS):
        for j in range(PARTIALS):
            sums[j] += np.float64(x_N[start + j])
    for i in range(whole, len(x_N)):
        sums[0] += np.float64(x_N[i])
    result = sums[0]
    for j in range(1, PARTIALS):
        result += sums[j]
    return result


@compiled()
def multiply_(
    x_RI: NDArray[np.float32], weight_PIO: NDArray[np.float32], out_RN: NDArray[np.float32]
) -> None:
    """Write the rows times a packed matrix; N = P * BLOCK. Every sum runs over I in order.

    The rows may be wider than the matrix has inputs; the rest counts for nothing.
    The outputs are the inner loop, so vector units work on many sums at once and on each in order.
    """
    for p in range(len(weight_PIO)):
        for begin in range(0, len(x_RI), MAX_ROWS):
            end = min(begin + MAX_ROWS, len(x_RI))
            _multiply_block_(x_RI, weight_PIO, out_RN, p, begin, end)


@compiled()
def _multiply_block_(
    x_RI: NDArray[np.float32],
    weight_PIO: NDArray[np.float32],
    out_RN: NDArray[np.float32],
    p: int,
    begin: int,
    end: int,
) -> None:
    """Write one block of outputs of a few rows."""
    num_inputs, first = weight_PIO.shape[1], p * BLOCK
    whole = num_inputs // 4 * 4
    for r in range(begin, end):
        for j in range(BLOCK):
            out_RN[r, first + j] = _ZERO
    for i in range(0, whole, 4):
        w0, w1 = weight_PIO[p, i], weight_PIO[p, i + 1]
        w2, w3 = weight_PIO[p, i + 2], weight_PIO[p, i + 3]
        for r in range(begin, end):
            out_O = out_RN[r, first : first + BLOCK]
            x0, x1, x2, x3 = x_RI[r, i], x_RI[r, i + 1], x_RI[r, i + 2], x_RI[r, i + 3]
            for j in range(BLOCK):
                out_O[j] = (((out_O[j] + x0 * w0[j]) + x1 * w1[j]) + x2 * w2[j]) + x3 * w3[j]
    for i in range(whole, num_inputs):
        for r in range(begin, end):
            for j in range(BLOCK):
                out_RN[r, first + j] += x_RI[r, i] * weight_PIO[p, i, j]


@compiled()
def product(x_RN: NDArray[np.float32], weight_PIO: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows times a packed matrix, as wide as the matrix's blocks."""
    out = np.empty((len(x_RN), len(weight_PIO) * BLOCK), np.float32)
    multiply_(x_RN, weight_PIO, out)
    return out


@compiled()
def norm_rows_(
    x_RD: NDArray[np.float32], out_RD: NDArray[np.float32], factor_R: NDArray[np.float32]
) -> None:
    """Write each row divided by its root mean square, and the factor that did it."""
    dim = x_RD.shape[1]
    square_D = np.empty(dim, np.float32)
    for r in range(len(x_RD)):
        for i in range(dim):
            square_D[i] = x_RD[r, i] * x_RD[r, i]
        factor = _ONE / np.sqrt(np.float32(total(square_D) / dim) + NORM_EPS)
        factor_R[r] = factor
        for i in range(dim):
            out_RD[r, i] = x_RD[r, i] * factor
