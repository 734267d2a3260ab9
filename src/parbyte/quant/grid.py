"""Codes on a row-wise uniform grid, and the floats they stand for.

    weight[r, c] = codes[r, c] * scale[r]        codes in [-R, R], R = 2^(bits - 1) - 1

Shapes: R rows, C columns; a stack of matrices has further leading dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """One quantised tensor: int8[..., R, C] codes, float16[..., R] scales, bits per code."""

    codes: Tensor
    scale: Tensor
    bits: int


def max_code(bits: int) -> int:
    """Return the largest code of a symmetric grid of `bits` bits."""
    return 2 ** (bits - 1) - 1


def dequantize(codes: Codes) -> Tensor:
    """Return the float32[..., R, C] weights that the codes stand for, exactly reproducible."""
    return codes.codes.to(torch.float32) * codes.scale.to(torch.float32).unsqueeze(-1)
