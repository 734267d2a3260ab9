"""What is stored beside codes where their errors cost most: low-rank sums, and single weights.

LQER: the worst few tensors get A B added, the best rank-r fit of W - W', in few bits. Where inputs
are known the fit weighs each column by the size of what it meets. Source: Zhang et al. 2024,
arXiv:2402.02446; openai/parameter-golf PR 1797 (few bits a factor; ours are entropy-coded).
Sparse: the weights whose errors cost most, over all tensors, get the difference as a float16.
Shapes: R rows (leading dimensions of a stack too), C columns, K the rank.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes, LowRank, Sparse, dequantize
from parbyte.quant.rounding import round_to_nearest, search_scale

_FACTOR_DIGITS = 6
_SMALLEST_INPUT = (
    1e-3  # of the usual one; a column that nothing reaches has no say, but a finite one
)


def add_low_rank(
    weights: Mapping[str, Tensor],
    codes: Mapping[str, Codes],
    inputs: Mapping[str, Tensor],
    config: QuantConfig,
) -> dict[str, Codes]:
    """Return the codes, those of the `lqer_tensors` largest errors with a low-rank repair.

    inputs: float64[C], mean square of what each column of a tensor is multiplied with, by name.
    """
    errors = {n: weights[n].double() - dequantize(item).double() for n, item in codes.items()}
    size = {n: float(error.norm()) for n, error in errors.items() if codes[n].codes.ndim > 1}
    repaired = dict(codes)
    for name in sorted(size, key=lambda n: -size[n])[: config.lqer_tensors]:
        error_RC = errors[name].flatten(0, -2)
        rank = min(config.lqer_rank, *error_RC.shape)
        bits = (config.lqer_bits_left, config.lqer_bits_right)
        repair = low_rank(error_RC, inputs.get(name), rank, bits)
        repaired[name] = replace(codes[name], repairs=(*codes[name].repairs, repair))
    return repaired


def low_rank(
    error_RC: Tensor, inputs_C: Tensor | None, rank: int, bits: tuple[int, int]
) -> LowRank:
    """Return A B near the error, A and B in codes; what A lost in rounding is asked of B."""
    heard_C = torch.ones(error_RC.shape[1], dtype=torch.float64)
    if inputs_C is not None:
        heard_C = inputs_C.sqrt() / inputs_C.mean().sqrt().clamp_min(1e-30)
        heard_C = heard_C.clamp_min(_SMALLEST_INPUT)
    heard_RC = error_RC * heard_C
    # The eigenvectors of E^T E are the right singular vectors of E, at the price of C^3.
    vectors_CC = torch.linalg.eigh(heard_RC.T @ heard_RC).eigenvectors
    best_CK = vectors_CC[:, -rank:].flip(-1)
    left = _factor((heard_RC @ best_CK).T.float(), bits[0])
    left_RK = dequantize(left).T.double()
    gram_KK = left_RK.T @ left_RK
    right_KC = torch.linalg.pinv(gram_KK, hermitian=True) @ (left_RK.T @ heard_RC)
    return LowRank(left, _factor((right_KC / heard_C).float(), bits[1]))


def add_sparse(
    weights: Mapping[str, Tensor],
    codes: Mapping[str, Codes],
    inputs: Mapping[str, Tensor],
    share: float,
) -> dict[str, Codes]:
    """Return the codes, the `share` of all weights whose errors cost most corrected exactly.

    An error costs its square times the mean square of its input; 1 where no input is known.
    """
    errors = {n: weights[n].float() - dequantize(item) for n, item in codes.items()}
    costs = {
        name: (error.double().square() * inputs.get(name, torch.ones((), dtype=torch.float64)))
        for name, error in errors.items()
    }
    wanted = round(share * sum(cost.numel() for cost in costs.values()))
    chosen = torch.cat([cost.flatten() for cost in costs.values()]).topk(wanted).indices
    repaired, first = {}, 0
    for name, item in codes.items():
        inside = chosen[(chosen >= first) & (chosen < first + costs[name].numel())]
        index = (inside - first).sort().values
        first += costs[name].numel()
        value = errors[name].flatten()[index].to(torch.float16)
        added = (Sparse(index, value),) if len(index) else ()
        repaired[name] = replace(item, repairs=(*item.repairs, *added))
    return repaired


def _factor(matrix_KC: Tensor, bits: int) -> Codes:
    return round_to_nearest(matrix_KC, search_scale(matrix_KC, bits, _FACTOR_DIGITS), bits)
