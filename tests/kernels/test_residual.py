"""A product onto a stream against float64, gradients included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parbyte.kernels.residual import add_product, fused_add_product


@pytest.mark.parametrize("function", [add_product, fused_add_product])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (4, 8, 16)])
def test_value_and_gradients_equal_a_float64_loop(
    function: Callable[..., Tensor], shape: tuple[int, int, int]
) -> None:
    rows, width, inner = shape
    generator = torch.Generator().manual_seed(3)
    shapes = (rows, width), (rows, inner), (width, inner)
    case = [torch.randn(size, generator=generator, requires_grad=True) for size in shapes]
    exact = [tensor.detach().double().requires_grad_() for tensor in case]
    x, y, weight = exact
    products = torch.stack([torch.stack([row @ inputs for row in weight]) for inputs in y])
    expected = x + products
    value = function(*case)
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)
    pull = torch.randn(value.shape, generator=generator)
    found = torch.autograd.grad(value, case, pull)
    wanted = torch.autograd.grad(expected, exact, pull.double())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_leading_dimensions_are_kept() -> None:
    x, y, weight = torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(5, 4)
    torch.testing.assert_close(add_product(x, y, weight), x + y @ weight.mT)
