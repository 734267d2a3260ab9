"""Two scaled streams and their gradients against a float64 loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parbyte.kernels.mixture import fused_mixture, mix_streams


@pytest.mark.parametrize("function", [mix_streams, fused_mixture])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (4, 7, 16)])
def test_value_and_gradients_equal_a_float64_loop(
    function: Callable[..., Tensor], shape: tuple[int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(6)
    shapes = (shape, shape, shape[-1:], shape[-1:])
    case = [torch.randn(size, generator=generator, requires_grad=True) for size in shapes]
    pull = torch.randn(shape, generator=generator)
    value = function(*case)
    grads = torch.autograd.grad(value, case, pull)
    x, s, a, b = (tensor.detach().double() for tensor in case)
    expected = [torch.zeros_like(tensor) for tensor in (x, x, s, a, b)]
    for lane in range(shape[0]):
        for t in range(shape[1]):
            for d in range(shape[2]):
                place, g = (lane, t, d), float(pull[lane, t, d])
                expected[0][place] = a[d] * x[place] + b[d] * s[place]
                expected[1][place] = g * a[d]
                expected[2][place] = g * b[d]
                expected[3][d] += g * x[place]
                expected[4][d] += g * s[place]
    for found, wanted in zip((value, *grads), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
