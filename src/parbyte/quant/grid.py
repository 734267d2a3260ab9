"""Codes on a grid, what repairs them, and the floats they stand for.

    weight[r, c] = point(codes)[r, c] * step[r, c]      then the repairs, in their order

Uniform grid: point = code in [-R, R], R = 2^(bits - 1) - 1; one bit: -1 or 1. The others are in
quant.lattice and quant.codebook. Each product and each sum is rounded for itself, in one order:
the same floats on every machine. Shapes: R rows, C columns, G groups of columns, K entries of a
book or rank, D weights an entry; a stack of matrices has further leading dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.quant.codebook import book_points
from parbyte.quant.lattice import WIDTH, lattice_points


@dataclass(frozen=True)
class Fine:
    """Columns start..stop whose steps are halved `halvings` times."""

    start: int
    stop: int
    halvings: int


@dataclass(frozen=True)
class Codes:
    """One quantised tensor: int8[..., R, C] codes, float16[..., R] scales, bits per code.

    scale: float16[..., R, G] where each row has a scale for every C / G columns.
    book: float16[K, D] of the grid "codebook", whose codes are int8[..., R, C / D].
    """

    codes: Tensor
    scale: Tensor
    bits: int
    grid: str = "uniform"
    fine: Fine | None = None
    book: Tensor | None = None
    repairs: "tuple[LowRank | Sparse, ...]" = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        each = 1 if self.book is None else self.book.shape[1]
        return (*self.codes.shape[:-1], self.codes.shape[-1] * each)

    @property
    def width(self) -> int:
        """Columns that are rounded together."""
        if self.book is not None:
            return self.book.shape[1]
        return WIDTH if self.grid == "e8" else 1

    @property
    def num_symbols(self) -> int:
        """How many different codes there can be; the middle one of them is 0."""
        return 2 * self.limit + 1 if self.book is None else len(self.book)

    @property
    def limit(self) -> int:
        """Largest code of any column of a uniform grid or lattice."""
        return max_code(min(8, self.bits + (0 if self.fine is None else self.fine.halvings)))


@dataclass(frozen=True)
class LowRank:
    """The sum over k of left[k, r] * right[k, c]: codes [K, R] and [K, C]."""

    left: Codes
    right: Codes


@dataclass(frozen=True)
class Sparse:
    """What is added to single weights: int64[N] rising places in the flat tensor, float16[N]."""

    index: Tensor
    value: Tensor


def max_code(bits: int) -> int:
    """Return the largest code of a symmetric grid of `bits` bits."""
    return max(1, 2 ** (bits - 1) - 1)


def dequantize(codes: Codes) -> Tensor:
    """Return the float32[..., R, C] weights that the codes stand for, exactly reproducible."""
    out = torch.empty(codes.shape, device=codes.codes.device)
    dequantize_into_(out, codes)
    return out


def dequantize_into_(out: Tensor, codes: Codes) -> None:
    """Write the weights that the codes stand for into a contiguous float32[..., R, C]."""
    out.copy_(points_of(codes)).mul_(steps_of(codes))
    for repair in codes.repairs:
        _add_(out, repair)


def points_of(codes: Codes) -> Tensor:
    """Return the points of the grid, in steps: float32[..., R, C], or the codes themselves."""
    if codes.book is not None:
        return book_points(codes.codes, codes.book)
    return lattice_points(codes.codes) if codes.grid == "e8" else codes.codes


def steps_of(codes: Codes) -> Tensor:
    """Return how wide a step is, float32[..., R, C] or float32[..., R, 1]."""
    step = codes.scale.to(torch.float32)
    num_columns = codes.shape[-1]
    if step.ndim < codes.codes.ndim:
        step = step.unsqueeze(-1)
    else:
        step = step.repeat_interleave(num_columns // step.shape[-1], dim=-1)
    if codes.fine is not None:
        step = step.expand(*step.shape[:-1], num_columns).clone()
        step[..., codes.fine.start : codes.fine.stop] *= 2.0**-codes.fine.halvings
    return step


def limits_of(codes: Codes) -> Tensor:
    """Return the largest code of each column, float64[C]; a codebook has no use for it."""
    limit_C = torch.full(codes.shape[-1:], float(max_code(codes.bits)), dtype=torch.float64)
    if codes.fine is not None:
        limit_C[codes.fine.start : codes.fine.stop] = codes.limit
    return limit_C


def _add_(out: Tensor, repair: LowRank | Sparse) -> None:
    if isinstance(repair, Sparse):
        out.view(-1)[repair.index] += repair.value.to(torch.float32)
        return
    out_RC = out.view(-1, out.shape[-1])
    # No matrix product: the order of its sums differs from machine to machine.
    for left_R, right_C in zip(dequantize(repair.left), dequantize(repair.right), strict=True):
        out_RC += left_R.unsqueeze(-1) * right_C
