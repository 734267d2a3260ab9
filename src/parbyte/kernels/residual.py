"""A matrix product onto a residual stream: x + y W^T.

On a GPU in bfloat16 the sum is part of the product's epilogue, which spares the stream a pass
through memory and one rounding.
Shapes: D width of the stream, K width of the input; N rows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def add_product(x: Tensor, y: Tensor, weight_DK: Tensor) -> Tensor:
    """Return x + y W^T for x of shape [..., D] and y of shape [..., K]."""
    if x.is_cuda and x.dtype == torch.bfloat16:
        return fused_add_product(x.flatten(0, -2), y.flatten(0, -2), weight_DK).view_as(x)
    return x + F.linear(y, weight_DK)


def fused_add_product(x_ND: Tensor, y_NK: Tensor, weight_DK: Tensor) -> Tensor:
    """Compute `add_product` by one call of the linear algebra library."""
    return _AddProduct.apply(x_ND, y_NK, weight_DK)


def product_onto(x_ND: Tensor, y_NK: Tensor, weight_DK: Tensor) -> Tensor:
    """Return x + y W^T, without gradients."""
    # The copy is explicit: compiled, whatever made or reads x writes it on the side.
    total_ND = x_ND.clone(memory_format=torch.contiguous_format)
    _add_product_(total_ND, y_NK, weight_DK)
    return total_ND


# An operator of its own, since Inductor would take an addmm apart again.
@torch.library.custom_op("parbyte::add_product_", mutates_args=("total_ND",))
def _add_product_(total_ND: Tensor, y_NK: Tensor, weight_DK: Tensor) -> None:
    torch.addmm(total_ND, y_NK, weight_DK.mT, out=total_ND)


@_add_product_.register_fake
def _(total_ND: Tensor, y_NK: Tensor, weight_DK: Tensor) -> None:
    return None


class _AddProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, y_NK: Tensor, weight_DK: Tensor) -> Tensor:
        ctx.save_for_backward(y_NK, weight_DK)
        return product_onto(x_ND, y_NK, weight_DK)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        grad_ND = grad_outputs[0]
        y_NK, weight_DK = ctx.saved_tensors
        return grad_ND, grad_ND @ weight_DK, grad_ND.mT @ y_NK
