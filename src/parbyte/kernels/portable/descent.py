"""Steps of an optimizer on a vector of parameters, one rounding an operation.

Shapes: P parameters; the arrays are pieces of longer vectors.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled

_ONE, _ZERO = np.float32(1), np.float32(0)
_SMALLEST_GRADIENT = np.float32(1e-15)
_SMALLEST_SQUARE = np.float32(1e-33)
"""What is smaller counts as 0: subnormal numbers never arise."""
Floats = NDArray[np.float32]


@compiled(is_entry=True)
def adam_(
    param_P: Floats,
    grad_P: Floats,
    mean_P: Floats,
    square_P: Floats,
    factor: np.float32,
    beta1: np.float32,
    beta2: np.float32,
    rate: np.float32,
    root: np.float32,
    eps: np.float32,
    keep: np.float32,
) -> None:
    """Take a step of AdamW. Source: Kingma & Ba 2015; Loshchilov & Hutter 2019.

    factor: of the gradient, for clipping. rate: learning rate / (1 - beta1^t). root: 1 / sqrt(1 -
    beta2^t). keep: 1 - learning rate * weight decay.
    """
    rest1, rest2 = _ONE - beta1, _ONE - beta2
    for i in range(len(param_P)):
        grad = grad_P[i] * factor
        size = -grad if grad < _ZERO else grad
        grad = grad if size > _SMALLEST_GRADIENT else _ZERO
        mean = beta1 * mean_P[i] + rest1 * grad
        size = -mean if mean < _ZERO else mean
        mean = mean if size > _SMALLEST_SQUARE else _ZERO
        square = beta2 * square_P[i] + rest2 * (grad * grad)
        square = square if square > _SMALLEST_SQUARE else _ZERO
        mean_P[i], square_P[i] = mean, square
        param_P[i] = param_P[i] * keep - rate * mean / (np.sqrt(square) * root + eps)


@compiled(is_entry=True)
def sgd_(
    param_P: Floats,
    grad_P: Floats,
    mean_P: Floats,
    factor: np.float32,
    momentum: np.float32,
    rate: np.float32,
    keep: np.float32,
) -> None:
    """Take a step of gradient descent with momentum; factor and keep as for `adam_`."""
    for i in range(len(param_P)):
        mean = momentum * mean_P[i] + grad_P[i] * factor
        size = -mean if mean < _ZERO else mean
        mean_P[i] = mean if size > _SMALLEST_SQUARE else _ZERO
        param_P[i] = param_P[i] * keep - rate * mean_P[i]


@compiled(is_entry=True)
def sum_of_squares(x_P: Floats) -> float:
    """Return the sum of squares in float64, in order of 16 partial sums; see numerics.total."""
    sums = np.zeros(16, np.float64)
    whole = len(x_P) // 16 * 16
    for start in range(0, whole, 16):
        for j in range(16):
            value = np.float64(x_P[start + j])
            sums[j] += value * value
    for i in range(whole, len(x_P)):
        sums[0] += np.float64(x_P[i]) * np.float64(x_P[i])
    result = 0.0
    for j in range(16):
        result += sums[j]
    return result
