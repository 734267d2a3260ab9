"""The Triton kernel of `kernels.filled_attention`: one program per lane and key/value head.

It streams the filled keys and values once, BLOCK positions at a time, with a running softmax
(Milakov and Gimelshein, arXiv 1805.02867). Its block sizes are constants and every sum has one
order, so that two processes on one kind of GPU compute the same bits.
Shapes: B lanes, H query heads, G key/value heads, R = H / G, S the cache's size, K head_dim.
"""

import math

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from parbyte.kernels.filled_attention import KERNEL_ROWS, fits_kernel

_BLOCK = 64


def launch(
    q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, position_1: Tensor, first_B: Tensor
) -> Tensor:
    """See `filled_attention`; bfloat16 or float32, sizes that `fits_kernel` lets pass."""
    num_lanes, num_heads, _, head_dim = q_BH1K.shape
    num_groups = k_BGSK.shape[1]
    repeats = num_heads // num_groups
    assert fits_kernel(repeats, head_dim)
    assert k_BGSK.is_contiguous() and v_BGSK.is_contiguous()
    q_BHK = q_BH1K.reshape(num_lanes, num_heads, head_dim).contiguous()
    out_BHK = torch.empty_like(q_BHK)
    _attend[(num_lanes, num_groups)](  # pyright: ignore[reportIndexIssue]
        q_BHK,
        k_BGSK,
        v_BGSK,
        out_BHK,
        position_1,
        first_B,
        k_BGSK.shape[2],
        math.log2(math.e) / math.sqrt(head_dim),
        REPEATS=repeats,
        ROWS=KERNEL_ROWS,
        HEAD_DIM=head_dim,
        BLOCK=_BLOCK,
        num_warps=4,
        num_stages=3,
    )
    return out_BHK[:, :, None]


@triton.jit
def _attend(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    position_ptr,
    first_ptr,
    capacity,
    scale,
    REPEATS: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    lane, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    num_groups = tl.num_programs(1)
    end = tl.load(position_ptr).to(tl.int32) + 1
    first = tl.load(first_ptr + lane).to(tl.int32)
    row_R, dim_K, place_S = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM), tl.arange(0, BLOCK)
    heads_RK = ((lane * num_groups + group) * REPEATS + row_R[:, None]) * HEAD_DIM + dim_K[None, :]
    is_head_R1 = row_R[:, None] < REPEATS
    q_RK = tl.load(q_ptr + heads_RK, mask=is_head_R1, other=0.0)
    store = (lane * num_groups + group) * capacity * HEAD_DIM
    largest_R = tl.full([ROWS], -1e30, tl.float32)
    total_R = tl.zeros([ROWS], tl.float32)
    sum_RK = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for start in range(first // BLOCK * BLOCK, end, BLOCK):
        at_S = start + place_S
        is_seen_S = (at_S < end) & (at_S >= first)
        cells_SK = store + at_S[:, None] * HEAD_DIM + dim_K[None, :]
        k_SK = tl.load(k_ptr + cells_SK, mask=is_seen_S[:, None], other=0.0)
        v_SK = tl.load(v_ptr + cells_SK, mask=is_seen_S[:, None], other=0.0)
        score_RS = tl.dot(q_RK, tl.trans(k_SK), input_precision="ieee") * scale
        score_RS = tl.where(is_seen_S[None, :], score_RS, -1e30)
        new_R = tl.maximum(largest_R, tl.max(score_RS, axis=1))
        shrink_R = tl.exp2(largest_R - new_R)
        weight_RS = tl.where(is_seen_S[None, :], tl.exp2(score_RS - new_R[:, None]), 0.0)
        total_R = total_R * shrink_R + tl.sum(weight_RS, axis=1)
        part_RK = tl.dot(weight_RS.to(v_SK.dtype), v_SK, input_precision="ieee")
        sum_RK = sum_RK * shrink_R[:, None] + part_RK
        largest_R = new_R
    y_RK = sum_RK / total_R[:, None]
    tl.store(out_ptr + heads_RK, y_RK.to(out_ptr.dtype.element_ty), mask=is_head_R1)
