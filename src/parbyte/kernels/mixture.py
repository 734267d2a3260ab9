"""Two streams scaled element by element and added: a x + b s.

Forward it is an expression that fuses with what stands around it. Backward both scales want a sum
over all rows; on a GPU one Triton kernel makes the four gradients in one pass.
Shapes: D width; N rows.
"""

from typing import Any

import torch
from torch import Tensor


def mix_streams(x: Tensor, s: Tensor, a_D: Tensor, b_D: Tensor) -> Tensor:
    """Return a x + b s for x and s of shape [..., D]."""
    if x.is_cuda and x.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return fused_mixture(x, s, a_D, b_D)
    return a_D * x + b_D * s


def fused_mixture(x: Tensor, s: Tensor, a_D: Tensor, b_D: Tensor) -> Tensor:
    """Compute `mix_streams` with its backward in one pass."""
    return _Mixture.apply(x, s, a_D, b_D)


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, a_D: Tensor, b_D: Tensor) -> Tensor:
        ctx.save_for_backward(x, s, a_D, b_D)
        return a_D * x + b_D * s

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        x, s, a_D, b_D = ctx.saved_tensors
        rows_ND = [tensor.flatten(0, -2).contiguous() for tensor in (grad_outputs[0], x, s)]
        dx_ND, ds_ND, da_D, db_D = _mixture_grads(*rows_ND, a_D, b_D)
        return dx_ND.view_as(x), ds_ND.view_as(s), da_D.to(a_D.dtype), db_D.to(b_D.dtype)


@torch.library.custom_op("parbyte::mixture_grads", mutates_args=())
def _mixture_grads(
    g_ND: Tensor, x_ND: Tensor, s_ND: Tensor, a_D: Tensor, b_D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if g_ND.is_cuda:
        from parbyte.kernels.mixture_triton import mixture_grads

        return mixture_grads(g_ND, x_ND, s_ND, a_D, b_D)
    da_D, db_D = (g_ND.float() * x_ND).sum(0), (g_ND.float() * s_ND).sum(0)
    return g_ND * a_D, g_ND * b_D, da_D, db_D


@_mixture_grads.register_fake
def _(
    g_ND: Tensor, x_ND: Tensor, s_ND: Tensor, a_D: Tensor, b_D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = (torch.empty_like(x_ND), torch.empty_like(s_ND))
    return (
        *grads,
        torch.empty_like(a_D, dtype=torch.float32),
        torch.empty_like(b_D, dtype=torch.float32),
    )
