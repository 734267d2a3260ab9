"""Nats and slopes of a softcapped head in one pass over its logits, for NVIDIA GPUs.

One program a row, which holds the whole row in registers. Only kernels.loss imports this file, and
late. Shapes: N rows, V vocab.
"""

# Triton comes with torch for CUDA only.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS_PER_WARP = 1024
_SMALL_CAP = 40.0
"""Logits under such a cap are at most 80 below it: their powers need no maximum to stay normal."""


@triton.jit
def _cap(z, softcap):
    # tanh by one power and one quotient; both ends are exact.
    tanh = 1.0 - 2.0 / (tl.exp(z * (2.0 / softcap)) + 1.0)
    return softcap * tanh, 1.0 - tanh * tanh


@triton.jit
def _nats_and_slopes(
    logits_NV, targets_N, nats_N, vocab_size, scale, softcap,
    HAS_SOFTCAP: tl.constexpr, CAP_IS_TOP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    is_token = column < vocab_size
    place = logits_NV + row * vocab_size
    target = tl.load(targets_N + row)
    counts = target >= 0
    z_target = tl.load(place + tl.maximum(target, 0)).to(tl.float32) * scale
    z = tl.load(place + column, mask=is_token, other=0.0).to(tl.float32) * scale
    if HAS_SOFTCAP:
        z, bend = _cap(z, softcap)
        z_target, _ = _cap(z_target, softcap)
    else:
        bend = 1.0
    top = softcap if CAP_IS_TOP else tl.max(tl.where(is_token, z, float("-inf")), axis=0)
    power = tl.where(is_token, tl.exp(z - top), 0.0)
    total = tl.sum(power, axis=0)
    tl.store(nats_N + row, tl.where(counts, top + tl.log(total) - z_target, 0.0))
    slope = power * (1.0 / total) - tl.where(column == target, 1.0, 0.0)
    slope = tl.where(counts, slope * bend * scale, 0.0)
    tl.store(place + column, slope.to(logits_NV.dtype.element_ty), mask=is_token)


def nats_and_slopes_(
    logits_NV: Tensor, targets_N: Tensor, *, scale: float, softcap: float
) -> Tensor:
    """Return each row's nats, float32[N], and put d nats / d logits in the place of the logits.

    logits: contiguous products of hidden states and table, before scale and softcap. A target below
    0 counts for nothing.
    """
    num_rows, vocab_size = logits_NV.shape
    nats_N = torch.empty(num_rows, dtype=torch.float32, device=logits_NV.device)
    block = triton.next_power_of_2(vocab_size)
    _nats_and_slopes[(num_rows,)](
        logits_NV, targets_N, nats_N, vocab_size, scale, softcap,
        HAS_SOFTCAP=softcap > 0, CAP_IS_TOP=0 < softcap <= _SMALL_CAP, BLOCK=block,
        num_warps=min(16, max(1, block // _ELEMENTS_PER_WARP)),
    )  # fmt: skip
    return nats_N
