"""Splitting one product into heads: both computations against a float64 loop, and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parbyte.kernels.heads import HeadSplit, fused_split_heads, split_heads
from parbyte.model.layers import rotary_tables

LANES, POSITIONS, WIDTH = 2, 3, 8
SPLITS = [HeadSplit(4, 2, 4), HeadSplit(2, 2, 0), HeadSplit(3, 1, 8)]


def draw_case(split: HeadSplit) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    num_heads = split.queries + 2 * split.keys
    heads = torch.randn(LANES, POSITIONS, num_heads, WIDTH, generator=generator)
    gain = torch.rand(split.queries + split.keys, generator=generator) + 0.5
    return [heads, gain], rotary_tables(POSITIONS, WIDTH, split.rope_dims, 100.0)


def reference(heads: Tensor, gain: Tensor, split: HeadSplit) -> list[Tensor]:
    parts: list[list[Tensor]] = [[], [], []]
    for head in range(heads.shape[2]):
        x, num_normed = heads[:, :, head], split.queries + split.keys
        if head < num_normed:
            x = gain[head] * x / ((x * x).mean(-1, keepdim=True) + 1e-7).sqrt()
            half, rows = split.rope_dims // 2, []
            for t in range(POSITIONS):
                z = [x[:, t, j] for j in range(WIDTH)]
                for j in range(half):
                    angle = torch.tensor(t * 100.0 ** (-2 * j / split.rope_dims)).double()
                    one, two = x[:, t, j], x[:, t, j + half]
                    z[j] = one * angle.cos() + two * angle.sin()
                    z[j + half] = two * angle.cos() - one * angle.sin()
                rows.append(torch.stack(z, -1))
            x = torch.stack(rows, 1)
        parts[(head >= split.queries) + (head >= num_normed)].append(x)
    return [torch.stack(part, 2) for part in parts]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("function", [split_heads, fused_split_heads])
def test_values_and_gradients_equal_a_float64_loop(
    function: Callable[..., tuple[Tensor, ...]], split: HeadSplit
) -> None:
    inputs, tables = draw_case(split)
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found, expected = function(*inputs, *tables, split), reference(*exact, split)
    generator = torch.Generator().manual_seed(8)
    pulls = [torch.randn(part.shape, generator=generator) for part in found]
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part.double(), wanted, atol=1e-5, rtol=1e-5)
    grads = torch.autograd.grad(found, inputs, pulls)
    wanted_grads = torch.autograd.grad(expected, exact, [pull.double() for pull in pulls])
    for grad, wanted in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad.double(), wanted, atol=1e-4, rtol=1e-4)


def test_the_kernel_passes_values_on_uncopied() -> None:
    (heads, gain), tables = draw_case(SPLITS[0])
    values = fused_split_heads(heads, gain, *tables, SPLITS[0])[2]
    assert values.data_ptr() == heads[:, :, 6:].data_ptr() and not values.is_contiguous()
