"""Norm and rotate heads in one pass, and back in another, for NVIDIA GPUs.

A program takes one head of a block of positions. Only kernels.heads imports this file, and late.
Shapes: B batch, T positions, H query heads, G key/value heads, K head_dim, a power of two;
N = H + 2 G, M = H + G; R = B T rows.
"""

# Triton comes with torch for CUDA only.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from parbyte.kernels.heads import NORM_EPS, HeadSplit

_ROWS, _NUM_WARPS = 64, 4
"""Positions of a program; found by trial on one H200."""


@triton.jit
def _partner(dim, half):
    # The other dim of a rotated pair; itself where nothing turns.
    other = tl.where(dim < half, dim + half, dim - half)
    return tl.where(dim < 2 * half, other, dim)


@triton.jit
def _load_turn(source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF: tl.constexpr,
               WIDTH: tl.constexpr):  # fmt: skip
    # The rotation of each dim and the dim it turns with; 1, 0 and 0 for those that do not turn.
    turns = (dim < 2 * HALF)[None, :] & is_row
    table = (row % num_positions)[:, None] * WIDTH + dim[None, :]
    cos = tl.load(cos_TK + table, mask=turns, other=1.0)
    sin = tl.load(sin_TK + table, mask=turns, other=0.0)
    pair = tl.load(source + _partner(dim, HALF)[None, :], mask=turns, other=0.0)
    return cos, sin, pair.to(tl.float32)


@triton.jit
def _split_heads(
    heads_RNK, gain_M, cos_TK, sin_TK, q_RHK, k_RGK, num_rows, num_positions, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    dim = tl.arange(0, WIDTH)
    is_row = (row < num_rows)[:, None]
    source = heads_RNK + (row.to(tl.int64) * (QUERIES + 2 * KEYS) + head)[:, None] * WIDTH
    x = tl.load(source + dim[None, :], mask=is_row, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / WIDTH + eps) * tl.load(gain_M + head)
    z = x * scale[:, None]
    if HALF > 0:
        cos, sin, pair = _load_turn(
            source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF, WIDTH
        )
        z = z * cos + pair * scale[:, None] * sin
    if head < QUERIES:
        place = (row.to(tl.int64) * QUERIES + head)[:, None] * WIDTH + dim[None, :]
        tl.store(q_RHK + place, z.to(q_RHK.dtype.element_ty), mask=is_row)
    else:
        place = (row.to(tl.int64) * KEYS + head - QUERIES)[:, None] * WIDTH + dim[None, :]
        tl.store(k_RGK + place, z.to(k_RGK.dtype.element_ty), mask=is_row)


@triton.jit
def _turn_back(source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF: tl.constexpr,
               WIDTH: tl.constexpr):  # fmt: skip
    dz = tl.load(source + dim[None, :], mask=is_row, other=0.0).to(tl.float32)
    if HALF > 0:
        cos, sin, pair = _load_turn(
            source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF, WIDTH
        )
        dz = dz * cos - pair * sin
    return dz


@triton.jit
def _join_heads(
    dq_RHK, dk_RGK, dv_RGK, heads_RNK, gain_M, cos_TK, sin_TK, dheads_RNK, dgain_MP,
    num_rows, num_positions, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    head, block = tl.program_id(0), tl.program_id(1)
    row = block * ROWS + tl.arange(0, ROWS)
    dim = tl.arange(0, WIDTH)
    is_row = (row < num_rows)[:, None]
    row_64 = row.to(tl.int64)
    place = (row_64 * (QUERIES + 2 * KEYS) + head)[:, None] * WIDTH + dim[None, :]
    if head >= QUERIES + KEYS:
        source = dv_RGK + (row_64 * KEYS + head - QUERIES - KEYS)[:, None] * WIDTH
        tl.store(dheads_RNK + place, tl.load(source + dim[None, :], mask=is_row), mask=is_row)
    else:
        if head < QUERIES:
            source = dq_RHK + (row_64 * QUERIES + head)[:, None] * WIDTH
            dy = _turn_back(source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF, WIDTH)
        else:
            source = dk_RGK + (row_64 * KEYS + head - QUERIES)[:, None] * WIDTH
            dy = _turn_back(source, dim, is_row, row, cos_TK, sin_TK, num_positions, HALF, WIDTH)
        x = tl.load(heads_RNK + place, mask=is_row, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x * x, axis=1) / WIDTH + eps)[:, None]
        normed = x * scale
        product = tl.sum(dy * normed, axis=1)
        dx = tl.load(gain_M + head) * scale * (dy - normed * (product / WIDTH)[:, None])
        tl.store(dheads_RNK + place, dx.to(dheads_RNK.dtype.element_ty), mask=is_row)
        tl.store(dgain_MP + head * tl.num_programs(1) + block, tl.sum(product, axis=0))


def queries_and_keys(
    heads_BTNK: Tensor, gain_M: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, split: HeadSplit
) -> tuple[Tensor, Tensor]:
    """Return queries and keys of `heads.plain_split_heads`, contiguous, from contiguous heads."""
    num_lanes, num_positions, _, width = heads_BTNK.shape
    q_BTHK = heads_BTNK.new_empty(num_lanes, num_positions, split.queries, width)
    k_BTGK = heads_BTNK.new_empty(num_lanes, num_positions, split.keys, width)
    num_rows, num_normed = num_lanes * num_positions, split.queries + split.keys
    _split_heads[(num_normed, triton.cdiv(num_rows, _ROWS))](
        heads_BTNK, gain_M, cos_T1K.contiguous(), sin_T1K.contiguous(), q_BTHK, k_BTGK,
        num_rows, num_positions, NORM_EPS,
        QUERIES=split.queries, KEYS=split.keys, HALF=split.rope_dims // 2, WIDTH=width, ROWS=_ROWS,
        num_warps=_NUM_WARPS,
    )  # fmt: skip
    return q_BTHK, k_BTGK


def join_heads(
    grads: tuple[Tensor, Tensor, Tensor],
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    """Compute `heads.plain_join_heads`; all inputs but the tables are contiguous."""
    num_lanes, num_positions, num_heads, width = heads_BTNK.shape
    num_rows = num_lanes * num_positions
    num_blocks = triton.cdiv(num_rows, _ROWS)
    grad_BTNK = torch.empty_like(heads_BTNK)
    grad_MP = gain_M.new_empty(len(gain_M), num_blocks)
    _join_heads[(num_heads, num_blocks)](
        *grads, heads_BTNK, gain_M, cos_T1K.contiguous(), sin_T1K.contiguous(), grad_BTNK, grad_MP,
        num_rows, num_positions, NORM_EPS,
        QUERIES=grads[0].shape[2], KEYS=grads[1].shape[2], HALF=rope_dims // 2, WIDTH=width,
        ROWS=_ROWS, num_warps=_NUM_WARPS,
    )  # fmt: skip
    return grad_BTNK, grad_MP.sum(1)
