"""One row's attention: keys and values are remembered, then the row looks at its past.

Shapes: H query heads, G key/value heads, K head_dim, C capacity, S positions seen, D model_dim,
N = (H + 2 G) K.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import NORM_EPS, exp, largest, total

_ONE, _ZERO = np.float32(1), np.float32(0)
XSA_EPS = np.float32(1e-12)
"""See model.attention."""
_UNSEEN = np.float32(-1e30)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled()
def remember_(
    qkv_N: Floats,
    gain_N: Floats,
    cos_K: Floats,
    sin_K: Floats,
    half: int,
    key_GKC: Floats,
    value_GCK: Floats,
    position: int,
) -> None:
    """Norm and rotate the row's query and key heads in place; store its keys and values.

    gain_N: one for each query head, then for each key head. half: of the rotated dims.
    """
    num_groups, dim = key_GKC.shape[:2]
    num_qk = len(gain_N)
    for head in range(num_qk):
        head_K = qkv_N[head * dim : (head + 1) * dim]
        norm_and_rotate_(head_K, gain_N[head], cos_K, sin_K, half)
    for group in range(num_groups):
        key, value = (num_qk - num_groups + group) * dim, (num_qk + group) * dim
        for i in range(dim):
            key_GKC[group, i, position] = qkv_N[key + i]
            value_GCK[group, position, i] = qkv_N[value + i]


@compiled()
def norm_and_rotate_(
    head_K: Floats, gain: np.float32, cos_K: Floats, sin_K: Floats, half: int
) -> None:
    """Norm one head, multiply it by its gain, rotate its first dims; see model.layers."""
    dim = len(head_K)
    square = _ZERO
    for i in range(dim):
        square += head_K[i] * head_K[i]
    factor = _ONE / np.sqrt(square / np.float32(dim) + NORM_EPS) * gain
    for i in range(dim):
        head_K[i] = head_K[i] * factor
    for i in range(half):
        one, other = head_K[i], head_K[half + i]
        head_K[i] = one * cos_K[i] + other * sin_K[i]
        head_K[half + i] = other * cos_K[half + i] + one * sin_K[half + i]


@compiled()
def attend_(
    qkv_N: Floats,
    key_GKC: Floats,
    value_GCK: Floats,
    document_C: Ints,
    position: int,
    scale: np.float32,
    is_exclusive: bool,
    y_D: Floats,
) -> None:
    """Write the row's attention output, all heads side by side.

    document_C: a position sees only those before it that have its own number.
    """
    num_groups, dim = key_GKC.shape[:2]
    num_heads, length = len(y_D) // dim, position + 1
    first_value = (num_heads + num_groups) * dim
    share_S = np.empty(length, np.float32)
    for head in range(num_heads):
        group = head // (num_heads // num_groups)
        query_K, y_K = qkv_N[head * dim : (head + 1) * dim], y_D[head * dim : (head + 1) * dim]
        score_(query_K, key_GKC[group], scale, share_S)
        share_(share_S, document_C, position)
        gather_(share_S, value_GCK[group], y_K)
        if is_exclusive:
            first = first_value + group * dim
            exclude_(y_K, qkv_N[first : first + dim])


@compiled()
def score_(query_K: Floats, key_KC: Floats, scale: np.float32, out_S: Floats) -> None:
    """Write the scaled products of a query with its keys; the positions are the inner loop."""
    for s in range(len(out_S)):
        out_S[s] = _ZERO
    whole = len(query_K) // 4 * 4
    for i in range(0, whole, 4):
        q0, q1 = query_K[i] * scale, query_K[i + 1] * scale
        q2, q3 = query_K[i + 2] * scale, query_K[i + 3] * scale
        k0, k1, k2, k3 = key_KC[i], key_KC[i + 1], key_KC[i + 2], key_KC[i + 3]
        for s in range(len(out_S)):
            out_S[s] = (((out_S[s] + q0 * k0[s]) + q1 * k1[s]) + q2 * k2[s]) + q3 * k3[s]
    for i in range(whole, len(query_K)):
        for s in range(len(out_S)):
            out_S[s] += (query_K[i] * scale) * key_KC[i, s]


@compiled()
def share_(score_S: Floats, document_C: Ints, position: int) -> None:
    """Replace scores by their softmax over the positions of the row's own document."""
    for s in range(len(score_S)):
        score_S[s] = score_S[s] if document_C[s] == document_C[position] else _UNSEEN
    softmax_(score_S)
    for s in range(len(score_S)):
        score_S[s] = score_S[s] if document_C[s] == document_C[position] else _ZERO


@compiled()
def softmax_(x_S: Floats) -> None:
    """Replace scores by their softmax."""
    top = largest(x_S)
    for s in range(len(x_S)):
        x_S[s] = exp(x_S[s] - top)
    factor = np.float32(1.0 / total(x_S))
    for s in range(len(x_S)):
        x_S[s] *= factor


@compiled()
def gather_(share_S: Floats, value_CK: Floats, y_K: Floats) -> None:
    """Write the values' mean, weighted by their shares; the head's dims are the inner loop."""
    for i in range(len(y_K)):
        y_K[i] = _ZERO
    whole = len(share_S) // 4 * 4
    for s in range(0, whole, 4):
        p0, p1, p2, p3 = share_S[s], share_S[s + 1], share_S[s + 2], share_S[s + 3]
        v0, v1, v2, v3 = value_CK[s], value_CK[s + 1], value_CK[s + 2], value_CK[s + 3]
        for i in range(len(y_K)):
            y_K[i] = (((y_K[i] + p0 * v0[i]) + p1 * v1[i]) + p2 * v2[i]) + p3 * v3[i]
    for s in range(whole, len(share_S)):
        for i in range(len(y_K)):
            y_K[i] += share_S[s] * value_CK[s, i]


@compiled()
def exclude_(y_K: Floats, value_K: Floats) -> None:
    """Remove the part along the row's own value; see model.attention.exclude_own_value."""
    dot, square = _ZERO, _ZERO
    for i in range(len(y_K)):
        dot += y_K[i] * value_K[i]
        square += value_K[i] * value_K[i]
    factor = dot / (XSA_EPS if square < XSA_EPS else square)
    for i in range(len(y_K)):
        y_K[i] = y_K[i] - factor * value_K[i]
