"""The way back through attention, norm and rotation of the heads.

The rows are whole positions, time by time: row t * B + b is lane b. Keys and values of earlier
positions are constants.
Shapes: B lanes, R rows, T positions of the rows, S all positions up to the last row, H query heads,
G key/value heads, K head_dim, C capacity, N = (H + 2 G) K.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.attention import XSA_EPS, gather_, score_, share_
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import Memory, Net
from parbyte.kernels.portable.numerics import NORM_EPS
from parbyte.kernels.portable.products_back import dot
from parbyte.kernels.portable.trace import Trace

_ZERO, _ONE = np.float32(0), np.float32(1)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled(is_inner=True)
def attention_back_(
    net: Net,
    memory: Memory,
    trace: Trace,
    layer: int,
    lanes_R: Ints,
    positions_R: Ints,
    back_RD: Floats,
    back_RN: Floats,
    grad_gain_H: Floats,
) -> None:
    """Write what comes back to the heads before norm and rotation, and the gains' gradient."""
    num_groups, dim = net.num_kv_heads, net.head_dim
    num_heads, num_lanes = len(grad_gain_H), np.sum(positions_R == positions_R[0])
    back_RN[:] = _ZERO
    for lane in range(num_lanes):
        for group in range(num_groups):
            group_back_(net, memory, trace, layer, lane, num_lanes, group, positions_R, lanes_R,
                         back_RD, back_RN)  # fmt: skip
    grad_gain_H[:] = _ZERO
    for r in range(len(lanes_R)):
        cos_K, sin_K, half = net.cos[positions_R[r]], net.sin[positions_R[r]], net.rope_dims // 2
        for head in range(num_heads + num_groups):
            raw_K = trace.heads[layer, r, head * dim : (head + 1) * dim]
            back_K = back_RN[r, head * dim : (head + 1) * dim]
            grad = head_back_(raw_K, net.gain[layer, head], cos_K, sin_K, half, back_K)
            if head < num_heads:
                grad_gain_H[head] += grad


@compiled(is_inner=True)
def group_back_(
    net: Net,
    memory: Memory,
    trace: Trace,
    layer: int,
    first_row: int,
    num_lanes: int,
    group: int,
    positions_R: Ints,
    lanes_R: Ints,
    back_RD: Floats,
    back_RN: Floats,
) -> None:
    """Go back through the heads that share one group's keys and values, for one lane."""
    lane, num_rows, dim = lanes_R[first_row], len(lanes_R), net.head_dim
    per_group = net.first_value // dim // net.num_kv_heads - 1
    key_KC, value_CK = memory.keys[layer, lane, group], memory.values[layer, lane, group]
    start, length = positions_R[0], positions_R[num_rows - 1] + 1
    key_SK, value_KS = turned(key_KC, length), turned(value_CK[:length], dim)
    back_key_TK = np.zeros((length - start, dim), np.float32)
    back_value_TK = np.zeros((length - start, dim), np.float32)
    is_exclusive = layer >= len(net.mix) - net.xsa_layers
    first_value = net.first_value + group * dim
    back_y_K = np.empty(dim, np.float32)
    for r in range(first_row, num_rows, num_lanes):
        place = positions_R[r]
        share_S, back_S = np.empty(place + 1, np.float32), np.empty(place + 1, np.float32)
        for head in range(group * per_group, (group + 1) * per_group):
            columns = slice(head * dim, (head + 1) * dim)
            query_K, back_query_K = trace.qkv[layer, r, columns], back_RN[r, columns]
            score_(query_K, key_KC, net.query_scale, share_S)
            share_(share_S, memory.documents[lane], place)
            back_y_K[:] = back_RD[r, columns]
            if is_exclusive:
                own_K = trace.qkv[layer, r, first_value : first_value + dim]
                exclude_back_(share_S, value_CK, own_K, back_y_K, back_value_TK[place - start])
            score_(back_y_K, value_KS, _ONE, back_S)
            softmax_back_(share_S, net.query_scale, back_S)
            gather_(back_S, key_SK, back_query_K)
            for s in range(start, place + 1):
                share, back = share_S[s], back_S[s]
                for i in range(dim):
                    back_value_TK[s - start, i] += share * back_y_K[i]
                    back_key_TK[s - start, i] += back * query_K[i]
    first_key = first_value - net.value_width
    for t in range(length - start):
        row_N = back_RN[first_row + t * num_lanes]
        row_N[first_key : first_key + dim] = back_key_TK[t]
        row_N[first_value : first_value + dim] = back_value_TK[t]


@compiled(is_inner=True)
def turned(x_MN: Floats, num_columns: int) -> Floats:
    """Return the transpose of the first columns."""
    out_NM = np.empty((num_columns, len(x_MN)), np.float32)
    for m in range(len(x_MN)):
        for n in range(num_columns):
            out_NM[n, m] = x_MN[m, n]
    return out_NM


@compiled(is_inner=True)
def softmax_back_(share_S: Floats, scale: np.float32, back_S: Floats) -> None:
    """Replace what comes back to shares by what comes back to the products of query and key."""
    mean = dot(share_S, back_S)
    for s in range(len(share_S)):
        back_S[s] = share_S[s] * (back_S[s] - mean) * scale


@compiled(is_inner=True)
def exclude_back_(
    share_S: Floats, value_CK: Floats, own_K: Floats, back_K: Floats, back_own_K: Floats
) -> None:
    """Go back through y - (y . v) / (v . v) v: replace back_K, add to what comes back to v."""
    y_K = np.empty_like(own_K)
    gather_(share_S, value_CK, y_K)
    square = dot(own_K, own_K)
    is_tiny = square < XSA_EPS
    square = XSA_EPS if is_tiny else square
    factor, slope = dot(y_K, own_K) / square, dot(back_K, own_K) / square
    turn = _ZERO if is_tiny else (factor + factor) * slope
    for i in range(len(own_K)):
        back_own_K[i] += (turn * own_K[i] - slope * y_K[i]) - factor * back_K[i]
    for i in range(len(own_K)):
        back_K[i] -= slope * own_K[i]


@compiled(is_inner=True)
def head_back_(
    raw_K: Floats, gain: np.float32, cos_K: Floats, sin_K: Floats, half: int, back_K: Floats
) -> np.float32:
    """Replace back_K by what comes back to the raw head; return the gradient of its gain."""
    dim = len(raw_K)
    for i in range(half):
        one, other = back_K[i], back_K[half + i]
        back_K[i] = one * cos_K[i] + other * sin_K[half + i]
        back_K[half + i] = other * cos_K[half + i] + one * sin_K[i]
    square = _ZERO
    for i in range(dim):
        square += raw_K[i] * raw_K[i]
    factor = _ONE / np.sqrt(square / np.float32(dim) + NORM_EPS)
    grad = dot(back_K, raw_K) * factor
    mean = grad / np.float32(dim)
    for i in range(dim):
        back_K[i] = gain * factor * (back_K[i] - raw_K[i] * factor * mean)
    return grad
