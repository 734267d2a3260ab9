"""quant.gptq: the codes of a slow reference, never a worse row, damping that rises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from parbyte.quant.codebook import train_book
from parbyte.quant.gptq import factorize, gptq, output_error
from parbyte.quant.grid import Codes, max_code, points_of, steps_of
from parbyte.quant.rounding import (
    code_prices,
    max_scale,
    round_to_nearest,
    round_with_price,
    snap,
)


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
    nearest = round_to_nearest(weight, scale, bits)
    candidates = (replace(nearest, codes=expected), nearest)
    errors = [output_error(weight, codes, hessian) for codes in candidates]
    kept = torch.where((errors[0] <= errors[1])[:, None], expected, nearest.codes)
    assert torch.equal(gptq(weight, nearest, factor).codes, kept)


def block_reference(
    weight: torch.Tensor, nearest: Codes, hessian: torch.Tensor, damping: float
) -> np.ndarray:
    """The same with columns in blocks: what is left is moved by the inverse of what is left."""
    width, num_columns = nearest.width, weight.shape[1]
    h = hessian.numpy() + damping * np.diag(hessian.numpy()).mean() * np.eye(num_columns)
    blocks = np.arange(num_columns).reshape(-1, width)
    order = blocks[np.argsort(-np.diag(hessian.numpy())[blocks].sum(1), kind="stable")]
    w, step = weight.double().numpy(), steps_of(nearest).double().expand(weight.shape).numpy()
    points = np.zeros_like(w)
    for place, block in enumerate(order):
        steps = torch.from_numpy(w[:, block] / step[:, block])
        codes = snap(steps, nearest, torch.full((width,), float(nearest.limit)).double())
        found = points_of(replace(nearest, codes=codes)).double().numpy()
        points[:, block] = found * step[:, block]
        left = order[place:].flatten()
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        error = w[:, block] - points[:, block]
        w[:, left] -= error @ np.linalg.inv(inverse[:width, :width]) @ inverse[:width]
    return points


@pytest.mark.parametrize("grid", ["uniform", "e8", "codebook"])
def test_blocks_of_columns_and_groups_of_steps_follow_a_float64_reference(grid: str) -> None:
    weight, hessian = problem(12, 32, seed=4)
    scale = max_scale(weight.unflatten(1, (2, 16)), 4, 10)
    nearest = Codes(torch.empty(12, 32, dtype=torch.int8), scale, 4, grid=grid)
    if grid == "codebook":
        vectors = (weight / steps_of(nearest)).reshape(-1, 2)
        book = train_book(vectors, 64)
        nearest = replace(nearest, codes=nearest.codes[:, ::2], book=book)
    limit = torch.full((32,), float(nearest.limit))
    steps = weight / steps_of(nearest)
    nearest = replace(nearest, codes=snap(steps, nearest, limit).to(torch.int8))
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail, width=nearest.width)
    got = gptq(weight, nearest, factor)
    points = (points_of(got) * steps_of(got)).double().numpy()
    reference = block_reference(weight, nearest, hessian, 0.01)
    error = weight.double().numpy() - reference
    costs = ((error @ hessian.numpy()) * error).sum(1)
    follows = costs <= output_error(weight, nearest, hessian).numpy()
    assert follows.sum() > 6
    assert np.allclose(points[follows], reference[follows], atol=1e-6)
    ours, theirs = (output_error(weight, item, hessian) for item in (got, nearest))
    assert bool((ours <= theirs).all())


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_no_rows_outputs_err_more_than_rounded_to_nearest(bits: int, act_order: bool) -> None:
    weight, hessian = problem(64, 48, seed=bits)
    scale = max_scale(weight, bits, 3)
    factor = factorize(hessian, 0.01, act_order=act_order, warn=pytest.fail)
    nearest = round_to_nearest(weight, scale, bits)
    codes = gptq(weight, nearest, factor)
    ours, theirs = (output_error(weight, q, hessian) for q in (codes, nearest))
    assert bool((ours <= theirs).all())
    assert float(ours.sum()) < 0.85 * float(theirs.sum())


def test_without_correlation_it_rounds_to_nearest() -> None:
    weight, hessian = problem(10, 20, seed=0)
    scale = max_scale(weight, 4, 3)
    factor = factorize(hessian.diagonal().diag(), 0.01, act_order=True, warn=pytest.fail)
    nearest = round_to_nearest(weight, scale, 4)
    assert torch.equal(gptq(weight, nearest, factor).codes, nearest.codes)


def test_damping_rises_and_says_so_where_the_factor_fails() -> None:
    weight, hessian = problem(6, 9, seed=0)
    hessian -= 0.05 * hessian.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    hessian -= 1e-3 * torch.linalg.eigvalsh(hessian).clamp_max(0).min().abs() * torch.eye(9)
    said: list[str] = []
    factor = factorize(hessian, 1e-6, act_order=True, warn=said.append)
    assert said and "damping" in said[0]
    assert factor.damping > 1e-6
    assert bool(torch.isfinite(factor.upper_CC).all())
    nearest = round_to_nearest(weight, max_scale(weight, 4, 3), 4)
    assert gptq(weight, nearest, factor).codes.shape == (6, 9)


def test_inputs_that_never_occur_are_harmless() -> None:
    weight, hessian = problem(6, 9, seed=3)
    hessian[:, 4] = hessian[4] = 0.0
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail)
    nearest = round_to_nearest(weight, max_scale(weight, 4, 3), 4)
    codes = gptq(weight, nearest, factor).codes
    assert torch.equal(codes[:, 4], nearest.codes[:, 4])


def test_a_price_lowers_the_entropy_and_the_error_stays_near() -> None:
    weight, hessian = problem(200, 64, seed=5)
    scale = torch.full((200,), 0.7, dtype=torch.float16)
    factor = factorize(hessian, 0.01, act_order=True, warn=pytest.fail)
    nearest = round_to_nearest(weight, scale, 8)
    free = gptq(weight, nearest, factor)
    priced = gptq(weight, nearest, factor, code_prices(free.codes, 127, 0.1))
    assert entropy(priced.codes) < 0.97 * entropy(free.codes)
    errors = [float(output_error(weight, q, hessian).sum()) for q in (free, priced)]
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
