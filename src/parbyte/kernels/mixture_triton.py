"""The four gradients of a x + b s in one pass over its rows, for NVIDIA GPUs.

A program walks over blocks of whole rows and keeps its sums in registers; the programs' sums are
added at the end. Only kernels.mixture imports this file, and late. Shapes: N rows, D width.
"""

# Triton comes with torch for CUDA only.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 4096
"""Of one block of rows."""
_NUM_WARPS, _PROGRAMS_EACH = 8, 4


@triton.jit
def _mixture_grads(
    g_ND, x_ND, s_ND, a_D, b_D, dx_ND, ds_ND, da_PD, db_PD, num_rows, width,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, NUM_PROGRAMS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    is_column = column < width
    a = tl.load(a_D + column, mask=is_column, other=0.0).to(tl.float32)
    b = tl.load(b_D + column, mask=is_column, other=0.0).to(tl.float32)
    total_a = tl.zeros((ROWS, BLOCK), tl.float32)
    total_b = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(tl.program_id(0) * ROWS, num_rows, NUM_PROGRAMS * ROWS):
        row = first + tl.arange(0, ROWS)
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        is_there = (row < num_rows)[:, None] & is_column[None, :]
        g = tl.load(g_ND + place, mask=is_there, other=0.0).to(tl.float32)
        x = tl.load(x_ND + place, mask=is_there, other=0.0).to(tl.float32)
        s = tl.load(s_ND + place, mask=is_there, other=0.0).to(tl.float32)
        tl.store(dx_ND + place, (g * a[None, :]).to(dx_ND.dtype.element_ty), mask=is_there)
        tl.store(ds_ND + place, (g * b[None, :]).to(ds_ND.dtype.element_ty), mask=is_there)
        total_a += g * x
        total_b += g * s
    own = tl.program_id(0) * width + column
    tl.store(da_PD + own, tl.sum(total_a, axis=0), mask=is_column)
    tl.store(db_PD + own, tl.sum(total_b, axis=0), mask=is_column)


def mixture_grads(
    g_ND: Tensor, x_ND: Tensor, s_ND: Tensor, a_D: Tensor, b_D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, s (in their dtype), a and b (float32), given that of the sum."""
    num_rows, width = g_ND.shape
    programs = 1
    if g_ND.is_cuda:
        properties = torch.cuda.get_device_properties(g_ND.device)
        programs = _PROGRAMS_EACH * properties.multi_processor_count
    dx_ND, ds_ND = torch.empty_like(x_ND), torch.empty_like(s_ND)
    sums_2PD = torch.empty(2, programs, width, dtype=torch.float32, device=g_ND.device)
    block = triton.next_power_of_2(width)
    _mixture_grads[(programs,)](
        g_ND, x_ND, s_ND, a_D, b_D, dx_ND, ds_ND, sums_2PD[0], sums_2PD[1], num_rows, width,
        ROWS=max(1, _ELEMENTS // block), BLOCK=block, NUM_PROGRAMS=programs, num_warps=_NUM_WARPS,
    )  # fmt: skip
    da_D, db_D = sums_2PD.sum(1).unbind(0)
    return dx_ND, ds_ND, da_D.clone(), db_D.clone()
