"""Rounding column by column, each error pushed onto the columns that are still to be rounded.

The error that counts is that of the layer's outputs, e H e^T with H = E[x x^T]. In the order of
falling H_jj, with H^-1 = U^T U: round column j, then take (w_j - s q_j) / U_jj times U_jk from
every later column k. Source: Frantar et al. 2022, arXiv:2210.17323; the factor by one Cholesky of
the reversed matrix is openai/parameter-golf PR 1948. Shapes: R rows, C columns, W of them at once,
B in a block.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parbyte.quant.grid import Codes, limits_of, points_of, steps_of
from parbyte.quant.rounding import snap

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
    hessian_CC: Tensor,
    damping: float,
    *,
    act_order: bool,
    warn: Callable[[str], None],
    width: int = 1,
) -> Factor:
    """Order the columns and factor the damped Hessian; damping rises where that fails, and warns.

    A column that no input ever reaches gets the mean of the diagonal: it is rounded to nearest.
    width: columns that are rounded together, and stay together; their number must be a multiple.
    """
    diagonal_C = hessian_CC.diagonal().clone()
    usual = float(diagonal_C.mean()) or 1.0
    dead_C = diagonal_C <= 0
    order_C = torch.arange(len(diagonal_C))
    if act_order:
        largest = diagonal_C.unflatten(0, (-1, width)).sum(-1)
        order_C = order_C.unflatten(0, (-1, width))[largest.argsort(descending=True, stable=True)]
        order_C = order_C.flatten()
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


def gptq(weight_RC: Tensor, nearest: Codes, factor: Factor, price: Tensor | None = None) -> Codes:
    """Round a matrix so that its outputs change least; a row is never worse than `nearest`.

    nearest: the weights rounded each for itself, on the grid that is wanted. Columns that the grid
    rounds together are chosen together and their errors pushed on together. price: float64[limit +
    1], what a code of each size costs in squared steps; see quant.rounding.round_with_price. With a
    price no row is compared with round-to-nearest.
    """
    order_C, upper_CC, width = factor.order_C, factor.upper_CC, nearest.width
    # Columns lie in rows here: each is read and written as a whole, again and again.
    rest_CR = weight_RC.double().T[order_C].contiguous()
    step_CR = steps_of(nearest).double().expand(nearest.shape).T[order_C].contiguous()
    limit_C = limits_of(nearest)[order_C]
    # How a block's error of now becomes the error that later columns hear of: (U_BB^-1)^T.
    passing = torch.linalg.inv(_diagonal_blocks(upper_CC, width)).mT.contiguous()
    found = []
    # A column's error counts 1 / U_jj^2; prices are in squared steps of a column of mean weight.
    weight_C = upper_CC.diagonal().square().reciprocal()
    weight_C = weight_C / weight_C.mean()
    for start in range(0, len(order_C), _BLOCK):
        stop = min(start + _BLOCK, len(order_C))
        error_BR = torch.empty(stop - start, len(weight_RC), dtype=torch.float64)
        for j in range(start, stop, width):
            now, later = slice(j, j + width), slice(j + width, stop)
            dear = None if price is None else price / weight_C[j]
            codes_RW = snap((rest_CR[now] / step_CR[now]).T, nearest, limit_C[now], dear)
            found.append(codes_RW.to(torch.int8))
            point_RW = points_of(replace(nearest, codes=codes_RW))
            error_WR = rest_CR[now] - point_RW.T * step_CR[now]
            error_WR = passing[j // width] @ error_WR
            rest_CR[later].addmm_(upper_CC[now, later].T, error_WR, alpha=-1.0)
            error_BR[j - start : j - start + width] = error_WR
        rest_CR[stop:].addmm_(upper_CC[start:stop, stop:].T, error_BR, alpha=-1.0)
    chosen = replace(nearest, codes=_in_place(found, order_C, width))
    if price is not None:
        return chosen
    errors = [output_error(weight_RC, item, factor.hessian_CC) for item in (chosen, nearest)]
    better_R1 = (errors[0] <= errors[1])[:, None]
    return replace(nearest, codes=torch.where(better_R1, chosen.codes, nearest.codes))


def output_error(weight_RC: Tensor, codes: Codes, hessian_CC: Tensor) -> Tensor:
    """Return e H e^T of every row's rounding error, float64[R]."""
    error_RC = weight_RC.double() - points_of(codes).double() * steps_of(codes).double()
    return ((error_RC @ hessian_CC) * error_RC).sum(-1)


def _diagonal_blocks(upper_CC: Tensor, width: int) -> Tensor:
    """Return the square blocks along the diagonal, [C / W, W, W]."""
    blocks = upper_CC.unflatten(0, (-1, width)).unflatten(-1, (-1, width))
    return blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _in_place(found: list[Tensor], order_C: Tensor, width: int) -> Tensor:
    """Return the codes of one block of columns after another where they belong."""
    codes = torch.stack(found, 1)
    places = torch.empty_like(order_C[::width])
    places[order_C[::width] // width] = torch.arange(len(places))
    return codes[:, places].flatten(1)
