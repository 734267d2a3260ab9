"""The way back through products, norms and sums over rows, every sum in a fixed order.

Shapes: R rows, I inputs, N outputs, D model_dim, V rows of a table, E its width.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import BLOCK, total

_ZERO = np.float32(0)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled(is_inner=True)
def multiply_back_(
    back_RN: Floats,
    x_RI: Floats,
    weight_NI: Floats,
    scale_N: Floats,
    grad_NI: Floats,
    grad_scale_N: Floats,
    back_RI: Floats,
) -> None:
    """Go back through x -> x W^T diag(scale): write W's gradient, the scale's, and that of x.

    back_RN may be wider than the matrix has outputs, x_RI and back_RI than it has inputs.
    grad_scale_N: of no length: not wanted. Sums over rows and over outputs run in order.
    """
    num_rows, num_inputs = len(back_RN), weight_NI.shape[1]
    for r in range(num_rows):
        for i in range(num_inputs):
            back_RI[r, i] = _ZERO
    back_OR = np.empty((BLOCK, num_rows), np.float32)
    for first in range(0, len(weight_NI), BLOCK):
        width = min(BLOCK, len(weight_NI) - first)
        for r in range(num_rows):
            for o in range(width):
                back_OR[o, r] = back_RN[r, first + o]
        for o in range(width):
            grad_I = grad_NI[first + o]
            weigh_rows_(back_OR[o], x_RI, grad_I)
            scale = scale_N[first + o]
            if len(grad_scale_N) > 0:
                grad_scale_N[first + o] = dot(grad_I, weight_NI[first + o])
            for i in range(num_inputs):
                grad_I[i] *= scale
            for r in range(num_rows):
                back_OR[o, r] *= scale
        add_products_(back_OR, weight_NI[first : first + width], back_RI)


@compiled(is_inner=True)
def weigh_rows_(share_R: Floats, x_RI: Floats, out_I: Floats) -> None:
    """Write the sum of rows, each times its share; the inputs are the inner loop."""
    for i in range(len(out_I)):
        out_I[i] = _ZERO
    whole = len(share_R) // 4 * 4
    for r in range(0, whole, 4):
        s0, s1, s2, s3 = share_R[r], share_R[r + 1], share_R[r + 2], share_R[r + 3]
        x0, x1, x2, x3 = x_RI[r], x_RI[r + 1], x_RI[r + 2], x_RI[r + 3]
        for i in range(len(out_I)):
            out_I[i] = (((out_I[i] + s0 * x0[i]) + s1 * x1[i]) + s2 * x2[i]) + s3 * x3[i]
    for r in range(whole, len(share_R)):
        for i in range(len(out_I)):
            out_I[i] += share_R[r] * x_RI[r, i]


@compiled(is_inner=True)
def add_products_(back_OR: Floats, weight_OI: Floats, out_RI: Floats) -> None:
    """Add, to each row, the weights' rows times the row's numbers, in order."""
    num_inputs = weight_OI.shape[1]
    whole = len(weight_OI) // 4 * 4
    for o in range(0, whole, 4):
        w0, w1, w2, w3 = weight_OI[o], weight_OI[o + 1], weight_OI[o + 2], weight_OI[o + 3]
        for r in range(len(out_RI)):
            b0, b1, b2, b3 = back_OR[o, r], back_OR[o + 1, r], back_OR[o + 2, r], back_OR[o + 3, r]
            out_I = out_RI[r]
            for i in range(num_inputs):
                out_I[i] = (((out_I[i] + b0 * w0[i]) + b1 * w1[i]) + b2 * w2[i]) + b3 * w3[i]
    for o in range(whole, len(weight_OI)):
        for r in range(len(out_RI)):
            for i in range(num_inputs):
                out_RI[r, i] += back_OR[o, r] * weight_OI[o, i]


@compiled(is_inner=True)
def dot(x_N: Floats, y_N: Floats) -> np.float32:
    """Return the sum of products of the shorter length, summed as `total` does."""
    product_N = np.empty(min(len(x_N), len(y_N)), np.float32)
    for i in range(len(product_N)):
        product_N[i] = x_N[i] * y_N[i]
    return np.float32(total(product_N))


@compiled(is_inner=True)
def norm_rows_back_(back_RD: Floats, normed_RD: Floats, factor_R: Floats, out_RD: Floats) -> None:
    """Add what comes back through a norm: factor (g - normed mean(g normed))."""
    dim = normed_RD.shape[1]
    for r in range(len(normed_RD)):
        mean = dot(back_RD[r], normed_RD[r]) / np.float32(dim)
        for i in range(dim):
            out_RD[r, i] += factor_R[r] * (back_RD[r, i] - normed_RD[r, i] * mean)


@compiled(is_inner=True)
def scatter_(rows_R: Ints, back_RE: Floats, grad_VE: Floats) -> None:
    """Add each row to the gradient of the table's row that it looked up."""
    for r in range(len(rows_R)):
        for i in range(grad_VE.shape[1]):
            grad_VE[rows_R[r], i] += back_RE[r, i]


@compiled(is_inner=True)
def project_rows_back_(
    back_RN: Floats,
    rows_R: Ints,
    table_VE: Floats,
    proj_NE: Floats,
    scale_1: Floats,
    grad_table_VE: Floats,
    grad_proj_NE: Floats,
    grad_scale_1: Floats,
) -> None:
    """Go back through table rows times a scaled matrix: write the gradient of all three."""
    num_outputs = len(proj_NE)
    looked_RE = np.empty((len(rows_R), table_VE.shape[1]), np.float32)
    for r in range(len(rows_R)):
        looked_RE[r] = table_VE[rows_R[r]]
    back_RE, grad_scale_N = np.empty_like(looked_RE), np.empty(num_outputs, np.float32)
    scale_N = np.full(num_outputs, scale_1[0], np.float32)
    multiply_back_(back_RN, looked_RE, proj_NE, scale_N, grad_proj_NE, grad_scale_N, back_RE)
    grad_scale_1[0] = np.float32(total(grad_scale_N))
    grad_table_VE[:] = _ZERO
    scatter_(rows_R, back_RE, grad_table_VE)
