"""Cross-entropy of a softcapped head, from hidden states: float32, nats.

Two computations of one value: `plain_cross_entropy` is an expression that Inductor fuses;
`chunked_cross_entropy` runs a few rows at a time through loss and gradient, so that no tensor of
N x V ever exists. Eager CPU training takes the second: a chunk stays in the cache.
Shapes: N rows (positions), D model_dim, V vocab, P rows of one chunk.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that counts for nothing."""

_CHUNK_ELEMENTS = 2**20
_SMALLEST_PROB = 1e-30
"""Below it a float32 probability nears its underflow and its logarithm is taken the slow way."""


def softcapped_logits(
    hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None, *, scale: float, softcap: float
) -> Tensor:
    """Return float32[..., V]: z = scale * hidden W^T + bias; c tanh(z / c) if softcap = c > 0."""
    if scale != 1.0:
        hidden = hidden * scale
    if hidden.dtype == torch.float32:
        logits = F.linear(hidden, weight_VD, bias_V)
    else:
        logits = F.linear(hidden, weight_VD).float()
        logits = logits if bias_V is None else logits + bias_V
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def softcapped_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    scale: float,
    softcap: float,
) -> Tensor:
    """Return the mean nats of the targets that are not -100 (0 if there is none)."""
    is_eager_cpu = not (hidden_ND.is_cuda or torch.compiler.is_compiling())
    by_chunks = is_eager_cpu and hidden_ND.dtype == torch.float32
    function = chunked_cross_entropy if by_chunks else plain_cross_entropy
    return function(hidden_ND, weight_VD, bias_V, targets_N, scale=scale, softcap=softcap)


def plain_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    scale: float,
    softcap: float,
) -> Tensor:
    """Compute `softcapped_cross_entropy` as one expression over all logits."""
    logits_NV = softcapped_logits(hidden_ND, weight_VD, bias_V, scale=scale, softcap=softcap)
    total = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")
    return total / (targets_N != IGNORED).sum().clamp(min=1)


def chunked_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    scale: float,
    softcap: float,
) -> Tensor:
    """Compute `softcapped_cross_entropy` a chunk of rows at a time; float32 on the CPU only."""
    is_scored_N = targets_N != IGNORED
    if not bool(is_scored_N.all()):
        hidden_ND, targets_N = hidden_ND[is_scored_N], targets_N[is_scored_N]
    # Inside a Function grad mode is always off, so it is asked here.
    wants_grad = torch.is_grad_enabled()
    total = _ChunkedLoss.apply(hidden_ND, weight_VD, bias_V, targets_N, scale, softcap, wants_grad)
    return total / max(len(targets_N), 1)


class _ChunkedLoss(torch.autograd.Function):
    """Sum of nats; the gradients for a unit of it are ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        softcap: float,
        wants_grad: bool,
    ) -> Tensor:
        grads = _Grads(hidden_ND, weight_VD, bias_V) if wants_grad else None
        total = hidden_ND.new_zeros((), dtype=torch.float64)
        chunk_rows = max(16, _CHUNK_ELEMENTS // weight_VD.shape[0])
        for start in range(0, len(targets_N), chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits_PV = softcapped_logits(
                hidden_ND[rows], weight_VD, bias_V, scale=scale, softcap=softcap
            )
            probs_PV = torch.softmax(logits_PV, dim=-1)
            index_P1 = targets_N[rows, None]
            total += _sum_of_nats(logits_PV, probs_PV, index_P1)
            if grads is not None:
                slope_PV = probs_PV
                slope_PV.scatter_add_(1, index_P1, slope_PV.new_full(index_P1.shape, -1.0))
                if softcap:
                    slope_PV.mul_(1.0 - (logits_PV / softcap).square_())
                grads.add_(slope_PV, rows, scale)
        if grads is not None:
            ctx.save_for_backward(grads.hidden_ND, grads.weight_VD, grads.bias_V)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        unit = grad_outputs[0]
        hidden_ND, weight_VD, bias_V = ctx.saved_tensors
        grad_bias_V = None if bias_V is None else bias_V * unit
        return hidden_ND * unit, weight_VD * unit, grad_bias_V, None, None, None, None


def _sum_of_nats(logits_PV: Tensor, probs_PV: Tensor, index_P1: Tensor) -> Tensor:
    probs_P1 = probs_PV.gather(1, index_P1)
    if bool((probs_P1 < _SMALLEST_PROB).any()):
        nats_P1 = -torch.log_softmax(logits_PV, dim=-1).gather(1, index_P1)
    else:
        nats_P1 = -probs_P1.log()
    return nats_P1.sum(dtype=torch.float64)


class _Grads:
    """The three gradients, filled chunk by chunk."""

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> None:
        self.source_ND, self.matrix_VD = hidden_ND, weight_VD
        self.hidden_ND = torch.empty_like(hidden_ND)
        self.weight_VD = torch.zeros_like(weight_VD)
        self.bias_V = None if bias_V is None else torch.zeros_like(bias_V)

    def add_(self, slope_PV: Tensor, rows: slice, scale: float) -> None:
        """Add what the rows' slopes (d nats / d uncapped logits) give."""
        torch.mm(slope_PV, self.matrix_VD, out=self.hidden_ND[rows])
        if scale != 1.0:
            self.hidden_ND[rows].mul_(scale)
        self.weight_VD.addmm_(slope_PV.mT, self.source_ND[rows], alpha=scale)
        if self.bias_V is not None:
            self.bias_V.add_(slope_PV.sum(0))
