"""From one product to queries, keys and values: heads are normed and rotated, or passed on.

`plain_split_heads` is the expression. Inductor makes kernels of it that take two to three times as
long as their traffic through memory; `fused_split_heads` is one Triton kernel a direction.
Shapes: B lanes or batch, T positions, H query heads, G key/value heads, K head_dim;
N = H + 2 G heads of the product, M = H + G of them normed.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

NORM_EPS = 1e-7


class HeadSplit(NamedTuple):
    """How many heads are queries, how many keys (and values), how many dims are rotated."""

    queries: int
    keys: int
    rope_dims: int


def inverse_rms(x: Tensor) -> Tensor:
    """Return 1 / root mean square over the last dim, which is dropped; x is float32."""
    return torch.rsqrt(torch.linalg.vecdot(x, x) * (1.0 / x.shape[-1]) + NORM_EPS)


def norm_and_rotate(
    x_BTMK: Tensor, gain_M: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, rope_dims: int
) -> Tensor:
    """Norm every head, multiply it by its gain, rotate its first `rope_dims` dims by position.

    cos, sin: float32 from `model.layers.rotary_tables`. Float32 inside, the result has the dtype of
    x. Half-split layout: dim j pairs with dim j + rope_dims / 2. Source: RoFormer, arXiv
    2104.09864; the partial form is openai/parameter-golf PR 315.
    """
    x_f32 = x_BTMK.float()
    normed = x_f32 * (inverse_rms(x_f32) * gain_M).unsqueeze(-1)
    if rope_dims == 0:
        return normed.to(x_BTMK.dtype)
    half = rope_dims // 2
    # The backward of a split is one concatenation; that of slices pads and adds.
    first, second, rest = normed.split((half, half, x_BTMK.shape[-1] - rope_dims), dim=-1)
    swapped = torch.cat((second, first, rest), dim=-1)
    return torch.addcmul(normed * cos_T1K, swapped, sin_T1K).to(x_BTMK.dtype)


def split_heads(
    heads_BTNK: Tensor, gain_M: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, split: HeadSplit
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries [B, T, H, K] and keys [B, T, G, K], normed and rotated, and plain values.

    The values are a view. gain: float32. cos, sin: float32[T, 1, K].
    """
    head_dim = heads_BTNK.shape[-1]
    is_power = head_dim & (head_dim - 1) == 0
    if heads_BTNK.is_cuda and heads_BTNK.dtype == torch.bfloat16 and is_power:
        return fused_split_heads(heads_BTNK, gain_M, cos_T1K, sin_T1K, split)
    return plain_split_heads(heads_BTNK, gain_M, cos_T1K, sin_T1K, split)


def plain_split_heads(
    heads_BTNK: Tensor, gain_M: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, split: HeadSplit
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `split_heads` as an expression."""
    qk_BTMK, v_BTGK = heads_BTNK.split((split.queries + split.keys, split.keys), dim=2)
    qk_BTMK = norm_and_rotate(qk_BTMK, gain_M, cos_T1K, sin_T1K, split.rope_dims)
    q_BTHK, k_BTGK = qk_BTMK.split((split.queries, split.keys), dim=2)
    return q_BTHK, k_BTGK, v_BTGK


def fused_split_heads(
    heads_BTNK: Tensor, gain_M: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, split: HeadSplit
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `split_heads` by one kernel, and its backward by another."""
    return _SplitHeads.apply(heads_BTNK, gain_M, cos_T1K, sin_T1K, split)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        heads_BTNK: Tensor,
        gain_M: Tensor,
        cos_T1K: Tensor,
        sin_T1K: Tensor,
        split: HeadSplit,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(heads_BTNK, gain_M, cos_T1K, sin_T1K)
        ctx.split = split
        heads = heads_BTNK.contiguous()
        q_BTHK, k_BTGK = _queries_and_keys(heads, gain_M, cos_T1K, sin_T1K, *split)
        return q_BTHK, k_BTGK, heads_BTNK[:, :, split.queries + split.keys :]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        heads_BTNK, gain_M, cos_T1K, sin_T1K = ctx.saved_tensors
        grads = [grad.contiguous() for grad in grad_outputs]
        heads_BTNK = heads_BTNK.contiguous()
        rope_dims = ctx.split.rope_dims
        grad_BTNK, grad_M = _join(*grads, heads_BTNK, gain_M, cos_T1K, sin_T1K, rope_dims)
        return grad_BTNK, grad_M, None, None, None


@torch.library.custom_op("parbyte::queries_and_keys", mutates_args=())
def _queries_and_keys(
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    queries: int,
    keys: int,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    split = HeadSplit(queries, keys, rope_dims)
    if heads_BTNK.is_cuda:
        from parbyte.kernels.heads_triton import queries_and_keys

        return queries_and_keys(heads_BTNK, gain_M, cos_T1K, sin_T1K, split)
    q_BTHK, k_BTGK, _ = plain_split_heads(heads_BTNK, gain_M, cos_T1K, sin_T1K, split)
    return q_BTHK.contiguous(), k_BTGK.contiguous()


@_queries_and_keys.register_fake
def _(
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    queries: int,
    keys: int,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    num_lanes, num_positions, _, head_dim = heads_BTNK.shape
    q_BTHK = heads_BTNK.new_empty(num_lanes, num_positions, queries, head_dim)
    return q_BTHK, heads_BTNK.new_empty(num_lanes, num_positions, keys, head_dim)


@torch.library.custom_op("parbyte::join_heads", mutates_args=())
def _join(
    dq_BTHK: Tensor,
    dk_BTGK: Tensor,
    dv_BTGK: Tensor,
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    if heads_BTNK.is_cuda:
        from parbyte.kernels.heads_triton import join_heads

        grads = (dq_BTHK, dk_BTGK, dv_BTGK)
        return join_heads(grads, heads_BTNK, gain_M, cos_T1K, sin_T1K, rope_dims)
    return plain_join_heads(
        (dq_BTHK, dk_BTGK, dv_BTGK), heads_BTNK, gain_M, cos_T1K, sin_T1K, rope_dims
    )


@_join.register_fake
def _(
    dq_BTHK: Tensor,
    dk_BTGK: Tensor,
    dv_BTGK: Tensor,
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(heads_BTNK), torch.empty_like(gain_M)


def plain_join_heads(
    grads: tuple[Tensor, Tensor, Tensor],
    heads_BTNK: Tensor,
    gain_M: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    rope_dims: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the heads and of the gain, given those of the three parts.

    With n = x / rms(x) and dy = the gradient turned back: dx = gain (dy - n mean(dy n)) / rms(x).
    """
    dq_BTHK, dk_BTGK, dv_BTGK = grads
    dz_BTMK = torch.cat((dq_BTHK, dk_BTGK), dim=2).float()
    x_BTMK = heads_BTNK[:, :, : dz_BTMK.shape[2]].float()
    half, head_dim = rope_dims // 2, x_BTMK.shape[-1]
    first, second, rest = dz_BTMK.split((half, half, head_dim - rope_dims), dim=-1)
    swapped_BTMK = torch.cat((second, first, rest), dim=-1)
    dy_BTMK = dz_BTMK * cos_T1K - swapped_BTMK * sin_T1K
    scale_BTM1 = inverse_rms(x_BTMK)[..., None]
    normed_BTMK = x_BTMK * scale_BTM1
    product_BTMK = dy_BTMK * normed_BTMK
    mean_BTM1 = product_BTMK.mean(-1, keepdim=True)
    dx_BTMK = gain_M[:, None] * scale_BTM1 * (dy_BTMK - normed_BTMK * mean_BTM1)
    grad_BTNK = torch.cat((dx_BTMK.to(dv_BTGK.dtype), dv_BTGK), dim=2)
    return grad_BTNK, product_BTMK.sum((0, 1, 3)).to(gain_M.dtype)
