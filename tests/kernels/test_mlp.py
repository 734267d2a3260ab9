"""Both computations of the MLP against float64, gradients included."""

import pytest
import torch
from torch import Tensor

from parbyte.kernels.mlp import fused_mlp, mlp, plain_mlp

ROWS, WIDTH, HIDDEN = 7, 5, 9


def make_case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (ROWS, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    x, up, down = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, up, down


def reference(x: Tensor, up: Tensor, down: Tensor, slope: float) -> Tensor:
    rows = []
    for row in x:
        hidden = torch.stack([weights @ row for weights in up])
        active = torch.stack([h if h > 0 else slope * h for h in hidden])
        rows.append(down @ (active * active))
    return torch.stack(rows)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("function", [mlp, fused_mlp])
def test_value_and_gradients_equal_a_float64_loop(function: object, slope: float) -> None:
    assert callable(function)
    case = [tensor.requires_grad_() for tensor in make_case()]
    exact = [tensor.detach().double().requires_grad_() for tensor in case]
    value, expected = function(*case, slope), reference(*exact, slope)
    torch.testing.assert_close(value.double(), expected, atol=1e-4, rtol=1e-5)
    pull = torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad(value, case, pull)
    wanted = torch.autograd.grad(expected, exact, pull.double())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_without_gradients_the_fused_value_is_the_same(slope: float) -> None:
    case = make_case()
    with torch.no_grad():
        value = fused_mlp(*case, slope)
    expected = reference(*(tensor.double() for tensor in case), slope)
    torch.testing.assert_close(value.double(), expected, atol=1e-4, rtol=1e-5)


def test_leading_dimensions_are_kept() -> None:
    x, up, down = make_case()
    stacked = mlp(x.view(1, ROWS, WIDTH).expand(3, -1, -1), up, down, 0.5)
    assert stacked.shape == (3, ROWS, WIDTH)
    torch.testing.assert_close(stacked[2], plain_mlp(x, up, down, 0.5))
