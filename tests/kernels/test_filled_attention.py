"""Attention over the filled part of a cache against a loop in float64."""

import math

import pytest
import torch
from torch import Tensor

from parbyte.kernels.filled_attention import filled_attention


def attend_slowly(q: Tensor, k: Tensor, v: Tensor, position: int, first_B: Tensor) -> Tensor:
    """Loop over lanes and heads in float64; heads of one group share keys."""
    q, k, v = (x.double().cpu() for x in (q, k, v))
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(q.shape[0]):
        seen = slice(int(first_B[b]), position + 1)
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            weights = ((k[b, g, seen] @ q[b, h, 0]) / math.sqrt(q.shape[3])).softmax(0)
            out[b, h, 0] = weights @ v[b, g, seen]
    return out


def make_case(
    heads: int, groups: int, capacity: int, position: int, head_dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, a cache whose unfilled part is poison, and each lane's first position."""
    generator = torch.Generator().manual_seed(heads * 1000 + capacity * 10 + position)
    q = 2 * torch.randn(3, heads, 1, head_dim, generator=generator)
    k, v = (2 * torch.randn(3, groups, capacity, head_dim, generator=generator) for _ in "kv")
    k[:, :, position + 1 :], v[:, :, position + 1 :] = 1e4, 1e4
    return q, k, v, torch.tensor([0, position // 2, position])


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize(("capacity", "position"), [(1, 0), (9, 0), (9, 5), (70, 69), (200, 130)])
def test_it_sees_what_is_filled_and_nothing_else(
    heads: int, groups: int, capacity: int, position: int
) -> None:
    q, k, v, first_B = make_case(heads, groups, capacity, position, head_dim=16)
    y = filled_attention(q, k, v, torch.tensor([position]), first_B)
    expected = attend_slowly(q, k, v, position, first_B)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (8, 4), (6, 1)])
@pytest.mark.parametrize(("capacity", "position"), [(64, 0), (200, 130), (2048, 2047)])
@pytest.mark.parametrize("head_dim", [24, 64])
def test_a_gpu_agrees_with_float64_whether_the_kernel_fits_or_not(
    dtype: torch.dtype,
    bound: float,
    heads: int,
    groups: int,
    capacity: int,
    position: int,
    head_dim: int,
) -> None:
    q, k, v, first_B = make_case(heads, groups, capacity, position, head_dim)
    on_gpu = [x.to("cuda", dtype) for x in (q, k, v)]
    y = filled_attention(*on_gpu, torch.tensor([position], device="cuda"), first_B.cuda())
    expected = attend_slowly(*on_gpu, position, first_B)
    assert (y.double().cpu() - expected).norm() / expected.norm() < bound
    again = filled_attention(*on_gpu, torch.tensor([position], device="cuda"), first_B.cuda())
    assert torch.equal(y, again)
