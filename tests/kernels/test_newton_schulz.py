"""Newton-Schulz against the polynomial applied to singular values in float64."""

import pytest
import torch
from torch import Tensor

from parbyte.kernels.newton_schulz import MUON_QUINTIC, POLAR_EXPRESS, orthogonalize

ALL = [MUON_QUINTIC, POLAR_EXPRESS]


def by_singular_values(matrix: Tensor, coefficients) -> Tensor:
    """Apply the odd quintics to the singular values and nothing else."""
    u, sigma, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    sigma = sigma / (sigma.square().sum().sqrt() + 1e-7)
    for a, b, c in coefficients:
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return u @ torch.diag(sigma) @ vh


def make_stack(num: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows * 31 + columns)
    return torch.randn(num, rows, columns, generator=generator)


@pytest.mark.parametrize("coefficients", ALL)
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 20), (20, 6)])
def test_every_matrix_of_a_stack_gets_the_polynomials_of_its_singular_values(
    coefficients, rows: int, columns: int
) -> None:
    stack = make_stack(3, rows, columns)
    out = orthogonalize(stack, coefficients, dtype=torch.float32)
    assert out.shape == stack.shape
    for got, matrix in zip(out, stack, strict=True):
        expected = by_singular_values(matrix, coefficients)
        torch.testing.assert_close(got.double(), expected, atol=2e-4, rtol=0.0)


@pytest.mark.parametrize(
    ("coefficients", "low", "high"), [(MUON_QUINTIC, 0.67, 1.14), (POLAR_EXPRESS, 0.85, 1.15)]
)
def test_singular_values_down_to_a_hundredth_end_near_one(
    coefficients, low: float, high: float
) -> None:
    sigma = torch.linspace(0.02, 1.0, 16, dtype=torch.float64)
    u, v = (torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0] for _ in range(2))
    matrix = (u @ torch.diag(sigma) @ v).float()[None]
    out = torch.linalg.svdvals(orthogonalize(matrix, coefficients, dtype=torch.float32)[0])
    assert low < float(out.min())
    assert float(out.max()) < high


@pytest.mark.parametrize("coefficients", ALL)
def test_scale_and_transposition_of_the_input_do_not_matter(coefficients) -> None:
    stack = make_stack(2, 6, 9)
    out = orthogonalize(stack, coefficients, dtype=torch.float32)
    scaled = orthogonalize(stack * 1000.0, coefficients, dtype=torch.float32)
    turned = orthogonalize(stack.mT, coefficients, dtype=torch.float32)
    torch.testing.assert_close(scaled, out, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(turned, out.mT, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("coefficients", ALL)
def test_bfloat16_stays_near_float32_and_returns_bfloat16(coefficients) -> None:
    stack = make_stack(2, 16, 48)
    exact = orthogonalize(stack, coefficients, dtype=torch.float32)
    narrow = orthogonalize(stack, coefficients, dtype=torch.bfloat16)
    assert narrow.dtype == torch.bfloat16
    assert float((narrow.float() - exact).norm() / exact.norm()) < 0.05


def test_a_zero_matrix_stays_zero() -> None:
    out = orthogonalize(torch.zeros(1, 4, 6), MUON_QUINTIC, dtype=torch.float32)
    assert not out.any()
