"""quant.repair: low-rank sums against numpy's SVD, single weights against a sort."""

import numpy as np
import pytest
import torch

from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes, LowRank, Sparse, dequantize
from parbyte.quant.repair import add_low_rank, add_sparse, low_rank
from parbyte.quant.rounding import max_scale, round_to_nearest


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def sum_of(repair: LowRank) -> torch.Tensor:
    return dequantize(repair.left).double().T @ dequantize(repair.right).double()


def rounded(weight: torch.Tensor, bits: int) -> Codes:
    return round_to_nearest(weight, max_scale(weight, bits, 10), bits)


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_with_fine_factors_the_fit_is_the_best_of_its_rank(rank: int) -> None:
    error = gaussian(30, 12).double()
    u, s, v = np.linalg.svd(error.numpy(), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    got = sum_of(low_rank(error, None, rank, (8, 8)))
    assert float((got - torch.from_numpy(best)).norm()) < 0.03 * float(error.norm())


def test_what_meets_large_inputs_is_repaired_first() -> None:
    error = gaussian(40, 16).double()
    inputs = torch.full((16,), 1e-4, dtype=torch.float64)
    inputs[3] = 1.0
    left = error - sum_of(low_rank(error, inputs, 1, (8, 8)))
    assert float(left[:, 3].norm()) < 0.05 * float(error[:, 3].norm())
    s = np.linalg.svd(error.numpy() * inputs.sqrt().numpy(), compute_uv=False)
    weighted = left * inputs.sqrt()
    best = np.sqrt(max(0.0, (s[1:] ** 2).sum()))
    assert float(weighted.norm()) < 1.02 * best + 0.02 * s[0]


def test_only_the_largest_errors_get_a_repair_and_they_shrink() -> None:
    weights = {"a": gaussian(20, 16), "b": 9 * gaussian(20, 16, 1), "c": gaussian(1, 8, 2)[0]}
    codes = {name: rounded(weight, 3) for name, weight in weights.items()}
    config = QuantConfig(lqer_rank=4, lqer_tensors=1)
    repaired = add_low_rank(weights, codes, {}, config)
    assert [name for name, item in repaired.items() if item.repairs] == ["b"]
    before, after = ((weights["b"] - dequantize(c["b"])).norm() for c in (codes, repaired))
    assert float(after) < 0.9 * float(before)


def test_a_rank_beyond_the_matrix_is_that_of_the_matrix() -> None:
    weights = {"a": gaussian(20, 3)}
    repaired = add_low_rank(weights, {"a": rounded(weights["a"], 2)}, {}, QuantConfig(lqer_rank=64))
    repair = repaired["a"].repairs[0]
    assert isinstance(repair, LowRank)
    assert repair.left.shape == (3, 20)


def test_the_costliest_errors_of_all_tensors_are_corrected() -> None:
    weights = {"a": gaussian(20, 16), "b": 2 * gaussian(20, 16, 1)}
    codes = {name: rounded(weight, 3) for name, weight in weights.items()}
    inputs = {"a": torch.linspace(0, 3, 16, dtype=torch.float64)}
    repaired = add_sparse(weights, codes, inputs, 0.05)
    costs, corrected = [], []
    for name, weight in weights.items():
        error = (weight - dequantize(codes[name])).double()
        cost = error.square() * inputs.get(name, torch.ones(16, dtype=torch.float64))
        left = (weight - dequantize(repaired[name])).double()
        costs += cost.flatten().tolist()
        corrected += (left.abs() < 1e-3 * error.abs()).flatten().tolist()
        for repair in repaired[name].repairs:
            assert isinstance(repair, Sparse)
            assert bool((repair.index.diff() > 0).all())
    worst = set(np.argsort(costs)[-32:].tolist())
    assert worst == {place for place, done in enumerate(corrected) if done}


def test_no_share_means_no_repair() -> None:
    weights = {"a": gaussian(5, 5)}
    codes = {"a": rounded(weights["a"], 3)}
    assert add_sparse(weights, codes, {}, 0.001)["a"].repairs == ()
