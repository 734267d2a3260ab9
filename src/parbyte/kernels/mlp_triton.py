"""Two matrix products with the squared leaky ReLU in their epilogues, for NVIDIA GPUs from Hopper.

Both are persistent: one program a multiprocessor walks over tiles of the output, operands and
results travel through tensor descriptors (TMA). Only kernels.mlp imports this file, and late.
Shapes: N rows, D model_dim, F mlp_dim; all multiples of the tile.
"""

# Triton comes with torch for CUDA only.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from parbyte.kernels.mlp import TILE_D, TILE_F, TILE_N

_NUM_WARPS = 4
_PROGRAMS_EACH = 2
"""On a multiprocessor at once: one's products hide the other's epilogue."""
_UP_STAGES = 3
"""Loads in flight; these and the tiles were found by trial on one H200."""
_SLOPE_STAGES, _SLOPE_TILE_D = 4, 32
"""Half the depth: the epilogue's own loads want shared memory, too."""


@triton.jit
def _leaky_square_up(
    x_ND, up_FD, u_NF, h_NF, num_rows, num_columns, slope,
    WIDTH: tl.constexpr, TILE_N: tl.constexpr, TILE_F: tl.constexpr, TILE_D: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr, KEEP_U: tl.constexpr,
):  # fmt: skip
    tiles_across = num_columns // TILE_F
    num_tiles = (num_rows // TILE_N) * tiles_across
    for tile in tl.range(tl.program_id(0), num_tiles, NUM_PROGRAMS, flatten=True):
        row, column = (tile // tiles_across) * TILE_N, (tile % tiles_across) * TILE_F
        total = tl.zeros((TILE_N, TILE_F), tl.float32)
        for k in range(0, WIDTH, TILE_D):
            total = tl.dot(x_ND.load([row, k]), up_FD.load([column, k]).T, total)
        # Two halves: each needs half of the shared memory on its way out.
        halves = total.reshape(TILE_N, 2, TILE_F // 2).permute(0, 2, 1)
        first, second = halves.split()
        u = first.to(u_NF.dtype)
        active = tl.where(first > 0, 1.0, slope) * u.to(tl.float32)
        if KEEP_U:
            u_NF.store([row, column], u)
        h_NF.store([row, column], (active * active).to(u_NF.dtype))
        u = second.to(u_NF.dtype)
        active = tl.where(second > 0, 1.0, slope) * u.to(tl.float32)
        if KEEP_U:
            u_NF.store([row, column + TILE_F // 2], u)
        h_NF.store([row, column + TILE_F // 2], (active * active).to(u_NF.dtype))


@triton.jit
def _leaky_square_slope(
    g_ND, down_DF, u_NF, du_NF, num_rows, num_columns, slope,
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
        halves = total.reshape(TILE_N, 2, TILE_F // 2).permute(0, 2, 1)
        first, second = halves.split()
        u = u_NF.load([row, column]).to(tl.float32)
        first *= 2.0 * tl.where(u > 0, u, u * slope * slope)
        du_NF.store([row, column], first.to(u_NF.dtype))
        u = u_NF.load([row, column + TILE_F // 2]).to(tl.float32)
        second *= 2.0 * tl.where(u > 0, u, u * slope * slope)
        du_NF.store([row, column + TILE_F // 2], second.to(u_NF.dtype))


def up_and_square(x_ND: Tensor, up_FD: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Return u = x up^T and leaky_relu(u)^2, bfloat16[N, F] each."""
    u_NF = x_ND.new_empty(x_ND.shape[0], up_FD.shape[0])
    h_NF = torch.empty_like(u_NF)
    _run_up(x_ND, up_FD, u_NF, h_NF, slope, keep_u=True)
    return u_NF, h_NF


def square_of_up(x_ND: Tensor, up_FD: Tensor, slope: float) -> Tensor:
    """Return leaky_relu(x up^T)^2, bfloat16[N, F]."""
    h_NF = x_ND.new_empty(x_ND.shape[0], up_FD.shape[0])
    _run_up(x_ND, up_FD, h_NF, h_NF, slope, keep_u=False)
    return h_NF


def _run_up(
    x_ND: Tensor, up_FD: Tensor, u_NF: Tensor, h_NF: Tensor, slope: float, *, keep_u: bool
) -> None:
    (num_rows, width), num_columns = x_ND.shape, up_FD.shape[0]
    half = [TILE_N, TILE_F // 2]
    programs = _num_programs(x_ND)
    _leaky_square_up[(programs,)](
        TensorDescriptor.from_tensor(x_ND, [TILE_N, TILE_D]),
        TensorDescriptor.from_tensor(up_FD, [TILE_F, TILE_D]),
        TensorDescriptor.from_tensor(u_NF, half),
        TensorDescriptor.from_tensor(h_NF, half),
        num_rows, num_columns, slope,
        WIDTH=width, TILE_N=TILE_N, TILE_F=TILE_F, TILE_D=TILE_D, NUM_PROGRAMS=programs,
        KEEP_U=keep_u, num_warps=_NUM_WARPS, num_stages=_UP_STAGES,
    )  # fmt: skip


def slope_of_square(g_ND: Tensor, down_DF: Tensor, u_NF: Tensor, slope: float) -> Tensor:
    """Return (g down) times the derivative of leaky_relu(u)^2 by u, bfloat16[N, F]."""
    (num_rows, width), num_columns = g_ND.shape, down_DF.shape[1]
    du_NF = torch.empty_like(u_NF)
    half = [TILE_N, TILE_F // 2]
    programs = _num_programs(g_ND)
    _leaky_square_slope[(programs,)](
        TensorDescriptor.from_tensor(g_ND, [TILE_N, _SLOPE_TILE_D]),
        TensorDescriptor.from_tensor(down_DF, [_SLOPE_TILE_D, TILE_F]),
        TensorDescriptor.from_tensor(u_NF, half),
        TensorDescriptor.from_tensor(du_NF, half),
        num_rows, num_columns, slope,
        WIDTH=width, TILE_N=TILE_N, TILE_F=TILE_F, TILE_D=_SLOPE_TILE_D, NUM_PROGRAMS=programs,
        num_warps=_NUM_WARPS, num_stages=_SLOPE_STAGES,
    )  # fmt: skip
    return du_NF


def _num_programs(tensor: Tensor) -> int:
    if not tensor.is_cuda:
        return 1
    return _PROGRAMS_EACH * torch.cuda.get_device_properties(tensor.device).multi_processor_count
