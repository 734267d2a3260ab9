"""One matrix to codes: choose each row's scale by a clip rule, then round to nearest.

Shapes: R rows, C columns (leading dimensions allowed); a group of columns is a row of its own.
"""

import torch
from torch import Tensor

from parbyte.quant.codebook import book_codes
from parbyte.quant.grid import Codes, max_code
from parbyte.quant.lattice import lattice_codes

# The smallest positive float16; a smaller scale would underflow to 0 and divide by zero.
SMALLEST_SCALE = 2.0**-24
_LARGEST_SCALE = 65504.0
_FLOAT16_DIGITS = 10
# 2-bit grids want to clip near 0.4 of a Gaussian row's maximum, 8-bit grids hardly at all.
_SHRINKS = tuple(1.0 - 0.03 * i for i in range(24))


def round_to_nearest(weight_RC: Tensor, scale_R: Tensor, bits: int) -> Codes:
    """Round each weight to the nearest code of its row; what lies outside the grid is clipped.

    weight_RC: float32[..., R, C]. scale_R: float16[..., R], positive.
    """
    limit = max_code(bits)
    steps_RC = weight_RC / scale_R.to(torch.float32).unsqueeze(-1)
    return Codes(steps_RC.round_().clamp_(-limit, limit).to(torch.int8), scale_R, bits)


def snap(steps: Tensor, like: Codes, limit: Tensor, price: Tensor | None = None) -> Tensor:
    """Return whole numbers [..., C]: the codes of `steps`, [..., C], on the grid of `like`.

    A book's codes are [..., C / D]. limit: [C], the largest code of each column. price: see
    `round_with_price`; uniform grids of two bits and more know one.
    """
    if like.book is not None:
        return book_codes(steps, like.book)
    if like.grid == "e8":
        return lattice_codes(steps, limit.to(steps.dtype))
    if like.bits == 1:
        return torch.where(steps < 0, -1.0, 1.0).to(steps.dtype)
    return round_with_price(steps, limit.to(steps.dtype), price)


def round_with_price(steps: Tensor, limit: Tensor | int, price: Tensor | None) -> Tensor:
    """Return whole numbers near `steps`, the smaller neighbour where it is cheaper by enough.

    price: [limit + 1], what a code of each size costs, in squared steps: bits times a rate. A code
    then minimises (step - code)^2 + price among the nearest one and the next towards zero. None:
    to nearest. Source: Sullivan 1996, "Efficient scalar quantization of exponential and Laplacian
    random variables", IEEE Trans. Inf. Theory 42 (the dead zone that follows from it).
    """
    largest = torch.as_tensor(limit, dtype=steps.dtype)
    nearest = torch.clamp(steps.round(), -largest, largest)
    if price is None:
        return nearest
    size = nearest.abs()
    smaller = (size - 1).clamp_min_(0)
    far, near = (steps.abs() - smaller).square(), (steps.abs() - size).square()
    saved = price[size.long()] - price[smaller.long()]
    return torch.where(far - near < saved, smaller, size).copysign_(steps)


def code_prices(codes_RC: Tensor, limit: int, rate: float) -> Tensor:
    """Return float64[limit + 1]: rate times the bits of a code of each size, its sign included.

    The bits are those of an adaptive coder without contexts that has seen these codes.
    """
    sizes = codes_RC.abs().long().flatten()
    counts = torch.bincount(sizes, minlength=limit + 1).double() + 0.5
    cost = -(counts / counts.sum()).log2()
    cost[1:] += 1.0
    # Rare sizes have accidental counts; a larger code is never the cheaper one.
    return rate * torch.cummax(cost, 0).values


def max_scale(weight_RC: Tensor, bits: int, digits: int) -> Tensor:
    """Return the float16[R] scales whose largest code reaches each row's largest weight."""
    return _to_scale(_row_max(weight_RC) / max_code(bits), digits, up=True)


def std_scale(
    weight_RC: Tensor,
    bits: int,
    digits: int,
    clip_std: float,
    factor_R: Tensor | None = None,
) -> Tensor:
    """Return float16[R] scales of `clip_std` standard deviations over the largest code.

    The deviation is taken about zero, where the grid has its centre, so that a row of equal
    weights has one. Every row then has the same histogram of codes and size depends on clip_std
    alone. factor_R widens or narrows single rows, never so far that one is clipped for it.
    Source: openai/parameter-golf PR 1394; the factor is ours.
    """
    step_R = row_std(weight_RC) * (clip_std / max_code(bits))
    if factor_R is not None:
        unclipped_R = torch.minimum(_row_max(weight_RC) / max_code(bits), step_R)
        step_R = torch.maximum(step_R * factor_R, unclipped_R)
    return _to_scale(step_R, digits)


def mean_scale(weight_RC: Tensor, digits: int) -> Tensor:
    """Return the float16[R] scales that are each row's mean size: for binary and ternary codes.

    Binary codes then err least. Source: Rastegari et al. 2016, arXiv:1603.05279; ternary: Ma et al.
    2024, arXiv:2402.17764.
    """
    return _to_scale(weight_RC.to(torch.float64).abs().mean(-1).to(torch.float32), digits)


def refit_scale(
    weight_RC: Tensor, points_RC: Tensor, importance_C: Tensor, scale_R: Tensor, digits: int
) -> Tensor:
    """Return for each row the float16 scale that fits its points best, or the old one.

    s = sum_j h_j w_j q_j / sum_j h_j q_j^2 has the least error weighted by h; the old scale stays
    where rounding to `digits` would lose more. points_RC: what the codes are worth in steps.
    """
    weight, points = weight_RC.to(torch.float64), points_RC.to(torch.float64)
    power_R = (importance_C * points.square()).sum(-1)
    product_R = (importance_C * weight * points).sum(-1)
    old_R = scale_R.to(torch.float64)
    exact_R = torch.where((power_R > 0) & (product_R > 0), product_R / power_R, old_R)
    new_R = _to_scale(exact_R, digits)

    def error(step_R: Tensor) -> Tensor:
        missed = weight - points * step_R.to(torch.float64).unsqueeze(-1)
        return (importance_C * missed.square()).sum(-1)

    return torch.where(error(new_R) < error(scale_R), new_R, scale_R)


def frequency_factor(counts_V: Tensor, power: float) -> Tensor:
    """Return by what each token's steps differ from the usual: count^-power, geometric mean 1.

    A token's row errs on its logit at every position, and the loss feels that in proportion to the
    token's probability; the best steps would be ~ count^-0.5 if all rows could be finely coded.
    counts_V: how often each token occurs in training, any dtype; unseen counts as once.
    """
    log_V = -power * counts_V.to(torch.float64).clamp_min(1).log()
    return (log_V - log_V.mean()).exp().to(torch.float32)


def search_scale(weight_RC: Tensor, bits: int, digits: int) -> Tensor:
    """Return for each row the float16 scale, among shrunk maxima, of least squared error.

    Source: openai/parameter-golf PR 379, here per row instead of per matrix.
    """
    row_max_R = _row_max(weight_RC)
    best_R = max_scale(weight_RC, bits, digits)
    least_R = _squared_error(weight_RC, best_R, bits)
    for shrink in _SHRINKS:
        scale_R = _to_scale(row_max_R * (shrink / max_code(bits)), digits)
        error_R = _squared_error(weight_RC, scale_R, bits)
        better_R = error_R < least_R
        best_R = torch.where(better_R, scale_R, best_R)
        least_R = torch.where(better_R, error_R, least_R)
    return best_R


def row_std(weight_RC: Tensor) -> Tensor:
    """Return the standard deviation of each row about zero, float32[..., R]."""
    return weight_RC.to(torch.float64).square().mean(-1).sqrt().to(torch.float32)


def row_reach(weight_RC: Tensor) -> float:
    """Return the largest weight in units of its row's standard deviation; 0 if all are zero."""
    std_R = row_std(weight_RC)
    reach_R = _row_max(weight_RC) / std_R.clamp_min(torch.finfo(torch.float32).tiny)
    return float(reach_R[std_R > 0].max()) if bool((std_R > 0).any()) else 0.0


def _row_max(weight_RC: Tensor) -> Tensor:
    return weight_RC.abs().amax(-1)


def _squared_error(weight_RC: Tensor, scale_R: Tensor, bits: int) -> Tensor:
    limit = max_code(bits)
    step_R1 = scale_R.to(torch.float32).unsqueeze(-1)
    rounded_RC = (weight_RC / step_R1).round_().clamp_(-limit, limit).mul_(step_R1)
    return rounded_RC.sub_(weight_RC).square_().sum(-1)


def _to_scale(exact_R: Tensor, digits: int, *, up: bool = False) -> Tensor:
    """Round scales to `digits` binary digits of a float16; all-zero rows take the median scale.

    An all-zero row has only zero codes, so any scale serves; a usual one is the cheapest to store.
    """
    usual = exact_R[exact_R > 0].median() if bool((exact_R > 0).any()) else torch.tensor(1.0)
    positive_R = torch.where(exact_R > 0, exact_R, usual)
    positive_R = positive_R.clamp(SMALLEST_SCALE, _LARGEST_SCALE)
    fraction_R, exponent_R = torch.frexp(positive_R.to(torch.float64))
    # A float16 below 2^-14 has fewer digits: its last one is always worth 2^-24.
    unit_R = torch.exp2((exponent_R - 1 - digits).clamp_min(-24).to(torch.float64))
    count_R = torch.ldexp(fraction_R, exponent_R) / unit_R
    count_R = torch.ceil(count_R) if up else torch.round(count_R)
    rounded_R = (count_R.clamp_min(1) * unit_R).clamp_max(_LARGEST_SCALE)
    return rounded_R.to(torch.float16)
