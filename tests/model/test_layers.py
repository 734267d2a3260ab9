"""Norm, rotary positions and activation against float64 loops."""

import math

import pytest
import torch

from parbyte.kernels.heads import norm_and_rotate
from parbyte.model.layers import rms_norm, rotary_tables


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    x = randn(2, 3, 8) * 7
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-7).sqrt()
    torch.testing.assert_close(rms_norm(x).double(), expected, atol=1e-6, rtol=1e-6)


def test_rms_norm_of_zeros_is_zero_and_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_norms_keep_bfloat16_and_compute_in_float32() -> None:
    x = randn(2, 3, 4, 8).bfloat16()
    cos, sin = rotary_tables(3, 8, 4, 100.0)
    gain = torch.ones(4)
    for narrow, wide in [
        (rms_norm(x), rms_norm(x.float())),
        (norm_and_rotate(x, gain, cos, sin, 4), norm_and_rotate(x.float(), gain, cos, sin, 4)),
    ]:
        assert narrow.dtype == torch.bfloat16
        assert torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize("rope_dims", [0, 2, 4, 6])
def test_heads_are_normed_scaled_and_turned_pair_by_pair(rope_dims: int) -> None:
    x, gain, base = randn(2, 5, 3, 6), torch.tensor([0.5, 1.0, 4.0]), 50.0
    cos, sin = rotary_tables(5, 6, rope_dims, base)
    got = norm_and_rotate(x, gain, cos, sin, rope_dims)
    for b in range(2):
        for t in range(5):
            for h in range(3):
                head = x[b, t, h].double()
                head = head / head.square().mean().sqrt() * gain[h].double()
                expected = head.clone()
                for j in range(rope_dims // 2):
                    angle = t * base ** (-2 * j / rope_dims)
                    first, second = float(head[j]), float(head[j + rope_dims // 2])
                    c, s = math.cos(angle), math.sin(angle)
                    expected[j] = first * c + second * s
                    expected[j + rope_dims // 2] = second * c - first * s
                torch.testing.assert_close(got[b, t, h].double(), expected, atol=3e-6, rtol=1e-5)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    cos, sin = rotary_tables(30, 8, 4, 10_000.0)
    x = randn(1, 1, 2, 8).expand(1, 30, 2, 8)
    q, k = norm_and_rotate(x, torch.ones(2), cos, sin, 4)[0].unbind(1)
    products = q @ k.T
    torch.testing.assert_close(products[3, 1], products[27, 25], atol=1e-4, rtol=1e-5)
    assert abs(float(products[3, 1] - products[3, 0])) > 1e-3
