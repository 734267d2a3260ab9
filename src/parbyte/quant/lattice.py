"""The lattice E8: eight weights at a time become the nearest of its points.

E8 is all whole vectors with an even sum, and those moved by one half. It has one point a unit of
volume like whole numbers have, and 14 % less squared error (a second moment of 0.0717 for 1/12). Of
a point's last coordinate the low bit follows from the other seven; what is stored there instead is
whether the point is moved. So any eight whole numbers are the code of exactly one point.
Source: Conway and Sloane 1982, "Fast quantizing and decoding algorithms for lattice quantizers",
IEEE Trans. Inf. Theory 28; the code is ours. Shapes: C columns, a multiple of 8.
"""

import torch
from torch import Tensor

WIDTH = 8


def lattice_points(codes: Tensor) -> Tensor:
    """Return the points, float32[..., C], of codes of any integer or float type."""
    codes_8 = codes.to(torch.float32).unflatten(-1, (-1, WIDTH)).clone()
    moved = codes_8[..., -1].remainder(2)
    parity = codes_8[..., :-1].sum(-1).remainder(2)
    codes_8[..., -1] += parity - moved
    return (codes_8 + 0.5 * moved.unsqueeze(-1)).flatten(-2)


def lattice_codes(steps: Tensor, limit: Tensor) -> Tensor:
    """Return the codes of the points nearest to `steps`, [..., C] of the same type, within limit.

    limit: [C] or a scalar; where a code is clipped to it, its point is near, not nearest.
    """
    steps_8 = steps.unflatten(-1, (-1, WIDTH))
    whole_8, moved_8 = _even(steps_8), _even(steps_8 - 0.5)
    errors = [(steps_8 - whole_8).square().sum(-1), (steps_8 - 0.5 - moved_8).square().sum(-1)]
    moved = (errors[1] < errors[0]).to(steps.dtype)
    codes_8 = torch.where(moved.unsqueeze(-1) > 0, moved_8, whole_8)
    codes_8[..., -1] += moved - codes_8[..., :-1].sum(-1).remainder(2)
    codes = codes_8.flatten(-2)
    return torch.minimum(torch.maximum(codes, -limit), limit)


def _even(steps_8: Tensor) -> Tensor:
    """Return the nearest whole vectors with an even sum: where it is odd, the worst one turns."""
    whole_8 = steps_8.round()
    error_8 = steps_8 - whole_8
    worst = error_8.abs().argmax(-1, keepdim=True)
    turn = torch.where(error_8.gather(-1, worst) < 0, -1.0, 1.0).to(steps_8.dtype)
    odd = whole_8.sum(-1, keepdim=True).remainder(2)
    return whole_8.scatter_add(-1, worst, odd * turn)
