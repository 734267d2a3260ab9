"""Two matrix products with the squared leaky ReLU in their epilogues, for NVIDIA GPUs from Hopper.

Both are persistent: one program a multiprocessor walks over tiles of the output, operands and
results travel through tensor descriptors (TMA). Only kernels.mlp imports this file, and late.
Shapes: N rows, D model_dim, F mlp_dim; all multiples of the tile.
"""

# Triton comes with torch for CUDA only.
# pyright: reportMissingImports=false, reportIndexIssue=false

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from parbyte.kernels.mlp import TILE_D, TILE_F, TILE_N


class _Plan(NamedTuple):
    """How a product is cut up; `programs` share a multiprocessor, `stages` loads are in flight."""

    tile_n: int
    tile_f: int
    tile_d: int
    warps: int
    stages: int
    programs: int


# Two programs on a multiprocessor: one's products hide the other's epilogue. Found by trial on one
# H200 that was kept busy: an idle one runs faster and prefers larger tiles.
_UP = _Plan(TILE_N, TILE_F, TILE_D, warps=4, stages=3, programs=2)
# Half the depth: the epilogue's own loads want shared memory, too.
_SLOPE = _Plan(TILE_N, TILE_F, TILE_D // 2, warps=4, stages=4, programs=2)


@triton.jit
def _store_square(part_NF, h_NF, row, column, slope, IS_MARKED: tl.constexpr):
    active_NF = tl.maximum(part_NF, slope * part_NF)
    square_NF = active_NF * active_NF
    if IS_MARKED:
        # The nearest bfloat16 whose last bit is the sign bit of u.
        sign = part_NF.to(tl.uint32, bitcast=True) >> 31
        bits = (square_NF.to(tl.uint32, bitcast=True) + 0x10000 - (sign << 16)) >> 16
        marked = ((bits & 0xFFFE) | sign).to(tl.uint16)
        h_NF.store([row, column], marked.to(h_NF.dtype, bitcast=True))
    else:
        h_NF.store([row, column], square_NF.to(h_NF.dtype))


@triton.jit
def _leaky_square_up(
    x_ND, up_FD, h_NF, num_rows, num_columns, slope,
    WIDTH: tl.constexpr, TILE_N: tl.constexpr, TILE_F: tl.constexpr, TILE_D: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr, IS_MARKED: tl.constexpr,
):  # fmt: skip
    tiles_across = num_columns // TILE_F
    num_tiles = (num_rows // TILE_N) * tiles_across
    for tile in tl.range(tl.program_id(0), num_tiles, NUM_PROGRAMS, flatten=True):
        row, column = (tile // tiles_across) * TILE_N, (tile % tiles_across) * TILE_F
        total = tl.zeros((TILE_N, TILE_F), tl.float32)
        for k in range(0, WIDTH, TILE_D):
            total = tl.dot(x_ND.load([row, k]), up_FD.load([column, k]).T, total)
        # Two halves: each needs half of the shared memory on its way out.
        first, second = total.reshape(TILE_N, 2, TILE_F // 2).permute(0, 2, 1).split()
        _store_square(first, h_NF, row, column, slope, IS_MARKED)
        _store_square(second, h_NF, row, column + TILE_F // 2, slope, IS_MARKED)


@triton.jit
def _store_slope(part_NF, h_NF, du_NF, row, column, slope):
    h = h_NF.load([row, column])
    is_negative = (h.to(tl.uint16, bitcast=True) & 1) == 1
    factor = tl.where(is_negative, -2.0 * slope, 2.0) * tl.sqrt(h.to(tl.float32))
    du_NF.store([row, column], (part_NF * factor).to(du_NF.dtype))


@triton.jit
def _leaky_square_slope(
    g_ND, down_DF, h_NF, du_NF, num_rows, num_columns, slope,
    WIDTH: tl.constexpr, TILE_N: tl.constexpr, TILE_F: tl.constexpr, TILE_D: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
):  # fmt: skip
    tiles_across = num_columns // TILE_F
    num_tiles = (num_rows // TILE_N) * tiles_across
    for tile in tl.range(tl.program_id(0), num_tiles, NUM_PROGRAMS, flatten=True):
        row, column = (tile // tiles_across) * TILE_N, (tile % tiles_across) * TILE_F
        total = tl.zeros((TILE_N, TILE_F), tl.float32)
        for k in range(0, WIDTH, TILE_D):
            total = tl.dot(g_ND.load([row, k]), down_DF.load([k, column]), total)
        first, second = total.reshape(TILE_N, 2, TILE_F // 2).permute(0, 2, 1).split()
        _store_slope(first, h_NF, du_NF, row, column, slope)
        _store_slope(second, h_NF, du_NF, row, column + TILE_F // 2, slope)


def square_of_up(x_ND: Tensor, up_FD: Tensor, slope: float, *, is_marked: bool) -> Tensor:
    """Return h = leaky_relu(u)^2 with u = x up^T, bfloat16[N, F].

    is_marked: let h's last bit say whether u was negative.
    """
    (num_rows, width), num_columns = x_ND.shape, up_FD.shape[0]
    h_NF = x_ND.new_empty(num_rows, num_columns)
    programs = _num_programs(x_ND, _UP)
    _leaky_square_up[(programs,)](
        TensorDescriptor.from_tensor(x_ND, [_UP.tile_n, _UP.tile_d]),
        TensorDescriptor.from_tensor(up_FD, [_UP.tile_f, _UP.tile_d]),
        TensorDescriptor.from_tensor(h_NF, [_UP.tile_n, _UP.tile_f // 2]),
        num_rows, num_columns, slope,
        WIDTH=width, TILE_N=_UP.tile_n, TILE_F=_UP.tile_f, TILE_D=_UP.tile_d,
        NUM_PROGRAMS=programs, IS_MARKED=is_marked, num_warps=_UP.warps, num_stages=_UP.stages,
    )  # fmt: skip
    return h_NF


def slope_of_square(g_ND: Tensor, down_DF: Tensor, h_NF: Tensor, slope: float) -> Tensor:
    """Return (g down) times the derivative of h by u, from a marked h, bfloat16[N, F]."""
    (num_rows, width), num_columns = g_ND.shape, down_DF.shape[1]
    du_NF = torch.empty_like(h_NF)
    half = [_SLOPE.tile_n, _SLOPE.tile_f // 2]
    programs = _num_programs(g_ND, _SLOPE)
    _leaky_square_slope[(programs,)](
        TensorDescriptor.from_tensor(g_ND, [_SLOPE.tile_n, _SLOPE.tile_d]),
        TensorDescriptor.from_tensor(down_DF, [_SLOPE.tile_d, _SLOPE.tile_f]),
        TensorDescriptor.from_tensor(h_NF, half),
        TensorDescriptor.from_tensor(du_NF, half),
        num_rows, num_columns, slope,
        WIDTH=width, TILE_N=_SLOPE.tile_n, TILE_F=_SLOPE.tile_f, TILE_D=_SLOPE.tile_d,
        NUM_PROGRAMS=programs, num_warps=_SLOPE.warps, num_stages=_SLOPE.stages,
    )  # fmt: skip
    return du_NF


def _num_programs(tensor: Tensor, plan: _Plan) -> int:
    if not tensor.is_cuda:
        return 1
    multiprocessors = torch.cuda.get_device_properties(tensor.device).multi_processor_count
    return plan.programs * multiprocessors
