"""Rounding column by column, each error pushed onto the columns that are still to be rounded.

The error that counts is that of the layer's outputs, e H e^T with H = E[x x^T]. In the order of
falling H_jj, with H^-1 = U^T U: round column j, then take (w_j - s q_j) / U_jj times U_jk from
every later column k. Source: Frantar et al. 2022, arXiv:2210.17323; the factor by one Cholesky of
the reversed matrix is openai/parameter-golf PR 1948. Shapes: R rows, C columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.quant.grid import Codes, max_code
from parbyte.quant.rounding import round_to_nearest, round_with_price

_BLOCK = 128
_MORE_DAMPING = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Factor:
    """One matrix's Hessian made ready: column order, float64[C, C] upper U, and the Hessian."""

    order_C: Tensor
    upper_CC: Tensor
    hessian_CC: Tensor
    damping: float
    """What was added to the diagonal, as a share of its mean."""


def factorize(
    hessian_CC: Tensor, damping: float, *, act_order: bool, warn: Callable[[str], None]
) -> Factor:
    """Order the columns and factor the damped Hessian; damping rises where that fails, and warns.

    A column that no input ever reaches gets the mean of the diagonal: it is rounded to nearest.
    """
    diagonal_C = hessian_CC.diagonal().clone()
    usual = float(diagonal_C.mean()) or 1.0
    dead_C = diagonal_C <= 0
    order_C = torch.arange(len(diagonal_C))
    if act_order:
        order_C = torch.argsort(diagonal_C, descending=True, stable=True)
    for times in _MORE_DAMPING:
        raised = damping * times
        added_C = torch.where(dead_C, usual, raised * usual)
        damped_CC = (hessian_CC + torch.diag(added_C))[order_C][:, order_C]
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC.flip(0, 1))
        if not int(failed):
            eye_CC = torch.eye(len(order_C), dtype=torch.float64)
            inverse_CC = torch.linalg.solve_triangular(lower_CC, eye_CC, upper=False)
            return Factor(order_C, inverse_CC.flip(0, 1).contiguous(), hessian_CC, raised)
        warn(f"a Hessian is not positive with damping {raised:g}: ten times as much is tried")
    return Factor(order_C, torch.eye(len(order_C), dtype=torch.float64), hessian_CC, float("inf"))


def gptq(
    weight_RC: Tensor, scale_R: Tensor, bits: int, factor: Factor, price: Tensor | None = None
) -> Codes:
    """Round a matrix so that its outputs change least; a row is never worse than to nearest.

    price: float64[max code + 1], what a code of each size costs in squared steps; see
    quant.rounding.round_with_price. With a price no row is compared with round-to-nearest.
    """
    scale_R1 = scale_R.double().unsqueeze(-1)
    steps_RC = (weight_RC.double() / scale_R1)[:, factor.order_C]
    codes_RC = torch.empty_like(steps_RC)
    upper_CC, num_columns = factor.upper_CC, steps_RC.shape[1]
    # A column's error counts 1 / U_jj^2; prices are in squared steps of a column of mean weight.
    weight_C = upper_CC.diagonal().square().reciprocal()
    weight_C = weight_C / weight_C.mean()
    for start in range(0, num_columns, _BLOCK):
        stop = min(start + _BLOCK, num_columns)
        error_RB = torch.empty(len(steps_RC), stop - start, dtype=torch.float64)
        for j in range(start, stop):
            column_R = steps_RC[:, j]
            dear = None if price is None else price / weight_C[j]
            codes_RC[:, j] = round_with_price(column_R, max_code(bits), dear)
            error_R = (column_R - codes_RC[:, j]) / upper_CC[j, j]
            steps_RC[:, j + 1 : stop].addr_(error_R, upper_CC[j, j + 1 : stop], alpha=-1.0)
            error_RB[:, j - start] = error_R
        steps_RC[:, stop:].addmm_(error_RB, upper_CC[start:stop, stop:], alpha=-1.0)
    found = torch.empty(steps_RC.shape, dtype=torch.int8)
    found[:, factor.order_C] = codes_RC.to(torch.int8)
    if price is not None:
        return Codes(found, scale_R, bits)
    nearest = round_to_nearest(weight_RC, scale_R, bits).codes
    errors = [output_error(weight_RC, q, scale_R, factor.hessian_CC) for q in (found, nearest)]
    return Codes(torch.where((errors[0] <= errors[1])[:, None], found, nearest), scale_R, bits)


def output_error(
    weight_RC: Tensor, codes_RC: Tensor, scale_R: Tensor, hessian_CC: Tensor
) -> Tensor:
    """Return e H e^T of every row's rounding error, float64[R]."""
    error_RC = weight_RC.double() - codes_RC.double() * scale_R.double().unsqueeze(-1)
    return ((error_RC @ hessian_CC) * error_RC).sum(-1)
