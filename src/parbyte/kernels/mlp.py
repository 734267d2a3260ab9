"""The MLP of a block: two matrices around a squared leaky ReLU.

`plain_mlp` is the expression; `fused_mlp` computes it with the activation in the epilogues of two
Triton products, which spares the wide activations several passes through memory. The backward
needs u = x up^T only for the slope of its leaky square h, and gets it from h alone: |u| is a root
of h, and the last bit of h's mantissa says whether u was negative.
Shapes: N rows, D model_dim, F mlp_dim.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_N, TILE_F, TILE_D = 128, 128, 64
"""What the sizes must be multiples of to be fused."""
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_HOPPER = 9
_FEWEST_ROWS = 16_384
"""Fewer, as in a decoder's step, would leave multiprocessors idle."""


def mlp(x: Tensor, up_FD: Tensor, down_DF: Tensor, slope: float) -> Tensor:
    """Return leaky_relu(x up^T, slope)^2 down^T for x of shape [..., D] and a slope of 0 to 1."""
    if _can_fuse(x, up_FD):
        return fused_mlp(x.flatten(0, -2), up_FD, down_DF, slope).view_as(x)
    return plain_mlp(x, up_FD, down_DF, slope)


def fuses_on_this_machine() -> bool:
    """Say whether `mlp` is fused in training, given bfloat16 and sizes that are whole tiles."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= _HOPPER


def plain_mlp(x: Tensor, up_FD: Tensor, down_DF: Tensor, slope: float) -> Tensor:
    """Return `mlp` as one expression. Source: openai/parameter-golf PR 493."""
    return F.linear(F.leaky_relu(F.linear(x, up_FD), slope).square(), down_DF)


def fused_mlp(x_ND: Tensor, up_FD: Tensor, down_DF: Tensor, slope: float) -> Tensor:
    """Compute `mlp` in bfloat16 by fused products; sizes are multiples of the tile."""
    if torch.is_grad_enabled():
        return _FusedMLP.apply(x_ND, up_FD, down_DF, slope)
    return F.linear(_square_of_up(x_ND, up_FD, slope, is_marked=False), down_DF)


def _can_fuse(x: Tensor, up_FD: Tensor) -> bool:
    if not (x.is_cuda and x.dtype == torch.bfloat16):
        return False
    num_rows, (num_columns, width) = x[..., 0].numel(), up_FD.shape
    if num_rows < _FEWEST_ROWS:
        return False
    fits = num_rows % TILE_N == 0 and num_columns % TILE_F == 0 and width % TILE_D == 0
    return fits and torch.cuda.get_device_capability(x.device)[0] >= _HOPPER


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, up_FD: Tensor, down_DF: Tensor, slope: float) -> Tensor:
        h_NF = _square_of_up(x_ND, up_FD, slope, is_marked=True)
        ctx.save_for_backward(x_ND, up_FD, down_DF, h_NF)
        ctx.slope = slope
        return F.linear(h_NF, down_DF)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        g_ND = grad_outputs[0].contiguous()
        x_ND, up_FD, down_DF, h_NF = ctx.saved_tensors
        du_NF = _slope_of_square(g_ND, down_DF, h_NF, ctx.slope)
        return du_NF @ up_FD, du_NF.mT @ x_ND, g_ND.mT @ h_NF, None


@torch.library.custom_op("parbyte::square_of_up", mutates_args=())
def _square_of_up(x_ND: Tensor, up_FD: Tensor, slope: float, is_marked: bool) -> Tensor:
    if x_ND.is_cuda:
        from parbyte.kernels.mlp_triton import square_of_up

        return square_of_up(x_ND, up_FD, slope, is_marked=is_marked)
    u_NF = F.linear(x_ND, up_FD)
    h_NF = F.leaky_relu(u_NF, slope).square()
    if not is_marked:
        return h_NF
    return (h_NF.view(_BITS[h_NF.dtype]) & -2 | (u_NF < 0)).view(h_NF.dtype)


@_square_of_up.register_fake
def _(x_ND: Tensor, up_FD: Tensor, slope: float, is_marked: bool) -> Tensor:
    return x_ND.new_empty(x_ND.shape[0], up_FD.shape[0])


@torch.library.custom_op("parbyte::slope_of_square", mutates_args=())
def _slope_of_square(g_ND: Tensor, down_DF: Tensor, h_NF: Tensor, slope: float) -> Tensor:
    if g_ND.is_cuda:
        from parbyte.kernels.mlp_triton import slope_of_square

        return slope_of_square(g_ND, down_DF, h_NF, slope)
    is_negative_NF = h_NF.view(_BITS[h_NF.dtype]) & 1 == 1
    return (g_ND @ down_DF) * h_NF.sqrt() * torch.where(is_negative_NF, -2.0 * slope, 2.0)


@_slope_of_square.register_fake
def _(g_ND: Tensor, down_DF: Tensor, h_NF: Tensor, slope: float) -> Tensor:
    return torch.empty_like(h_NF)
