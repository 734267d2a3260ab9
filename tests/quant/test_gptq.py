"""quant.gptq: the codes of a slow reference, never a worse row, damping that rises."""

import numpy as np
import pytest
import torch

from parbyte.quant.gptq import factorize, gptq, output_error
from parbyte.quant.grid import max_code
from parbyte.quant.rounding import code_prices, max_scale, round_to_nearest, round_with_price


def problem(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random weights, and the Hessian of correlated inputs of uneven size."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    size = torch.exp(torch.randn(columns, generator=generator, dtype=torch.float64))
    inputs = torch.randn(4 * columns, columns, generator=generator, dtype=torch.float64)
    inputs = (inputs @ mix) * size
    return weight, inputs.T @ inputs / len(inputs)


def reference(
    weight: torch.Tensor, scale: torch.Tensor, hessian: torch.Tensor, bits: int, damping: float
) -> np.ndarray:
    """Optimal brain quantisation in a fixed order, by inverting what is left at every column."""
    limit = max_code(bits)
    w = weight.double().numpy() / scale.double().numpy()[:, None]
    order = np.argsort(-np.diag(hessian.numpy()), kind="stable")
    h = hessian.numpy() + damping * np.diag(hessian.numpy()).mean() * np.eye(len(hessian))
    codes = np.zeros_like(w)
    for place, j in enumerate(order):
        codes[:, j] = np.clip(np.round(w[:, j]), -limit, limit)
        left = order[place:]
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        error = (w[:, j] - codes[:, j]) / inverse[0, 0]
        w[:, left] -= np.outer(error, inverse[0])
    return codes


@pytest.mark.parametrize(("rows", "columns", "bits"), [(7, 5, 3), (40, 33, 5), (5, 140, 6)])
def test_codes_are_those_of_a_float64_reference(rows: int, columns: int, bits: int) -> None:
    weight, hessian = problem(rows, columns, seed=rows)
    scale = max_scale(weight, bits, 10)
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail)
    expected = torch.from_numpy(reference(weight, scale, hessian, bits, 0.01)).to(torch.int8)
    nearest = round_to_nearest(weight, scale, bits).codes
    errors = [output_error(weight, codes, scale, hessian) for codes in (expected, nearest)]
    kept = torch.where((errors[0] <= errors[1])[:, None], expected, nearest)
    assert torch.equal(gptq(weight, scale, bits, factor).codes, kept)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_no_rows_outputs_err_more_than_rounded_to_nearest(bits: int, act_order: bool) -> None:
    weight, hessian = problem(64, 48, seed=bits)
    scale = max_scale(weight, bits, 3)
    factor = factorize(hessian, 0.01, act_order=act_order, warn=pytest.fail)
    codes = gptq(weight, scale, bits, factor).codes
    nearest = round_to_nearest(weight, scale, bits).codes
    ours, theirs = (output_error(weight, q, scale, hessian) for q in (codes, nearest))
    assert bool((ours <= theirs).all())
    assert float(ours.sum()) < 0.85 * float(theirs.sum())


def test_without_correlation_it_rounds_to_nearest() -> None:
    weight, hessian = problem(10, 20, seed=0)
    scale = max_scale(weight, 4, 3)
    factor = factorize(hessian.diagonal().diag(), 0.01, act_order=True, warn=pytest.fail)
    nearest = round_to_nearest(weight, scale, 4).codes
    assert torch.equal(gptq(weight, scale, 4, factor).codes, nearest)


def test_damping_rises_and_says_so_where_the_factor_fails() -> None:
    weight, hessian = problem(6, 9, seed=0)
    hessian -= 0.05 * hessian.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    hessian -= 1e-3 * torch.linalg.eigvalsh(hessian).clamp_max(0).min().abs() * torch.eye(9)
    said: list[str] = []
    factor = factorize(hessian, 1e-6, act_order=True, warn=said.append)
    assert said and "damping" in said[0]
    assert factor.damping > 1e-6
    assert bool(torch.isfinite(factor.upper_CC).all())
    assert gptq(weight, max_scale(weight, 4, 3), 4, factor).codes.shape == (6, 9)


def test_inputs_that_never_occur_are_harmless() -> None:
    weight, hessian = problem(6, 9, seed=3)
    hessian[:, 4] = hessian[4] = 0.0
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail)
    codes = gptq(weight, max_scale(weight, 4, 3), 4, factor).codes
    nearest = round_to_nearest(weight, max_scale(weight, 4, 3), 4).codes
    assert torch.equal(codes[:, 4], nearest[:, 4])


def test_a_price_lowers_the_entropy_and_the_error_stays_near() -> None:
    weight, hessian = problem(200, 64, seed=5)
    scale = torch.full((200,), 0.7, dtype=torch.float16)
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail)
    free = gptq(weight, scale, 8, factor).codes
    priced = gptq(weight, scale, 8, factor, code_prices(free, 8, 0.1)).codes
    assert entropy(priced) < 0.97 * entropy(free)
    errors = [float(output_error(weight, q, scale, hessian).sum()) for q in (free, priced)]
    assert errors[1] < 1.5 * errors[0]


def entropy(codes: torch.Tensor) -> float:
    share = torch.unique(codes, return_counts=True)[1] / codes.numel()
    return float(-(share * share.log2()).sum())


def test_a_price_chooses_the_smaller_neighbour_exactly_where_it_pays() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = 4.0 * torch.randn(2000, generator=generator, dtype=torch.float64)
    price = 0.05 * torch.arange(8, dtype=torch.float64) ** 1.5
    got = round_with_price(steps, 7, price)
    for x, q in zip(steps.tolist(), got.tolist(), strict=True):
        nearest = max(-7, min(7, round(x)))
        smaller = nearest - (nearest > 0) + (nearest < 0)
        cost = {c: (x - c) ** 2 + float(price[abs(c)]) for c in (nearest, smaller)}
        assert cost[int(q)] == pytest.approx(min(cost.values()))
