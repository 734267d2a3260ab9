"""Cross-entropy of a softcapped head, from hidden states: float32, nats.

Three computations of one value. `plain_cross_entropy` is an expression that Inductor fuses. The
others run a few rows at a time through loss and gradient, so that no tensor of N x V ever exists:
`chunked_cross_entropy` for float32 on the CPU, where a chunk stays in the cache;
`fused_cross_entropy` for bfloat16 on a GPU, where a Triton kernel reads each logit once and leaves
its slope in its place.
Shapes: N rows (positions), D model_dim, V vocab, P rows of one chunk.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that counts for nothing."""

_CHUNK_ELEMENTS = 2**20
_GPU_CHUNK_ELEMENTS = 3 * 2**26
"""384 MiB of bfloat16: fewer rows at a time would leave a GPU waiting for launches."""
_MOST_FUSED_TOKENS = 16_384
"""Ids of the largest vocabulary whose row one program holds in registers."""
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
    is_bf16_cuda = hidden_ND.is_cuda and hidden_ND.dtype == torch.bfloat16
    fits = bias_V is None and weight_VD.shape[0] <= _MOST_FUSED_TOKENS
    if is_bf16_cuda and fits and torch.is_grad_enabled():
        return fused_cross_entropy(hidden_ND, weight_VD, targets_N, scale=scale, softcap=softcap)
    by_chunks = hidden_ND.device.type == "cpu" and hidden_ND.dtype == torch.float32
    function = chunked_cross_entropy if by_chunks else plain_cross_entropy
    return function(hidden_ND, weight_VD, bias_V, targets_N, scale=scale, softcap=softcap)


def fuses_on_this_machine() -> bool:
    """Say whether `softcapped_cross_entropy` is fused in training, given bfloat16 and no bias."""
    return torch.cuda.is_available()


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
    # Inside a Function grad mode is always off, so it is asked here.
    wants_grad = torch.is_grad_enabled()
    total = _ChunkedLoss.apply(hidden_ND, weight_VD, bias_V, targets_N, scale, softcap, wants_grad)
    return total / (targets_N != IGNORED).sum().clamp(min=1)


def fused_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, scale: float, softcap: float
) -> Tensor:
    """Compute `softcapped_cross_entropy` without bias a chunk of rows at a time, by Triton."""
    total = _FusedLoss.apply(hidden_ND, weight_VD, targets_N, scale, softcap)
    return total / (targets_N != IGNORED).sum().clamp(min=1)


class _FusedLoss(torch.autograd.Function):
    """Sum of nats; as in _ChunkedLoss the gradients are ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        scale: float,
        softcap: float,
    ) -> Tensor:
        total, grad_ND, grad_VD = _nats_and_grads(hidden_ND, weight_VD, targets_N, scale, softcap)
        ctx.save_for_backward(grad_ND, grad_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        grad_ND, grad_VD = ctx.saved_tensors
        unit = grad_outputs[0]
        return (grad_ND * unit).to(grad_ND.dtype), (grad_VD * unit).to(grad_ND.dtype), *[None] * 3


@torch.library.custom_op("parbyte::nats_and_grads", mutates_args=())
def _nats_and_grads(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_ND = torch.empty_like(hidden_ND)
    grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
    total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
    chunk_rows = _GPU_CHUNK_ELEMENTS // weight_VD.shape[0]
    for start in range(0, len(targets_N), chunk_rows):
        rows = slice(start, start + chunk_rows)
        slope_PV = hidden_ND[rows] @ weight_VD.mT
        total += _nats_and_slopes_(slope_PV, targets_N[rows], scale, softcap).sum()
        torch.mm(slope_PV, weight_VD, out=grad_ND[rows])
        grad_VD += slope_PV.mT @ hidden_ND[rows]
        # Else the next chunk would be made beside this one.
        del slope_PV
    return total, grad_ND, grad_VD


def _nats_and_slopes_(logits_PV: Tensor, targets_P: Tensor, scale: float, softcap: float) -> Tensor:
    if logits_PV.is_cuda:
        from parbyte.kernels.loss_triton import nats_and_slopes_

        return nats_and_slopes_(logits_PV, targets_P, scale=scale, softcap=softcap)
    return plain_nats_and_slopes_(logits_PV, targets_P, scale=scale, softcap=softcap)


def plain_nats_and_slopes_(
    logits_PV: Tensor, targets_P: Tensor, *, scale: float, softcap: float
) -> Tensor:
    """Compute `loss_triton.nats_and_slopes_` in torch."""
    z_PV = logits_PV.float() * scale
    capped_PV = softcap * torch.tanh(z_PV / softcap) if softcap else z_PV
    nats_P = F.cross_entropy(capped_PV, targets_P, ignore_index=IGNORED, reduction="none")
    is_target_PV = F.one_hot(targets_P.clamp(min=0), logits_PV.shape[1])
    slope_PV = scale * (torch.softmax(capped_PV, dim=-1) - is_target_PV)
    if softcap:
        slope_PV = slope_PV * (1.0 - (capped_PV / softcap).square())
    logits_PV.copy_(slope_PV * (targets_P != IGNORED)[:, None])
    return nats_P


@_nats_and_grads.register_fake
def _(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_VD = torch.empty_like(weight_VD, dtype=torch.float32)
    return grad_VD.new_empty(()), torch.empty_like(hidden_ND), grad_VD


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
        total, *grads = _chunked_nats_and_grads(
            hidden_ND, weight_VD, bias_V, targets_N, scale, softcap, wants_grad
        )
        ctx.save_for_backward(*grads)
        ctx.has_bias = bias_V is not None
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        unit = grad_outputs[0]
        grad_ND, grad_VD, grad_V = ctx.saved_tensors
        return grad_ND * unit, grad_VD * unit, grad_V * unit if ctx.has_bias else None, *[None] * 4


# An operator of its own, so that a compiled graph keeps the chunks.
@torch.library.custom_op("parbyte::chunked_nats_and_grads", mutates_args=())
def _chunked_nats_and_grads(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    scale: float,
    softcap: float,
    wants_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = [torch.zeros_like(x) if wants_grad else x.new_empty(0) for x in (hidden_ND, weight_VD)]
    grad_ND, grad_VD = grads
    grad_V = weight_VD.new_zeros(len(weight_VD) if wants_grad and bias_V is not None else 0)
    total = hidden_ND.new_zeros((), dtype=torch.float64)
    scored = (targets_N != IGNORED).nonzero().squeeze(1)
    # The same memory for every chunk: new pages cost more than what is written to them.
    size = weight_VD.shape[0]
    chunk_rows = max(16, _CHUNK_ELEMENTS // size)
    buffers_2PV = hidden_ND.new_empty(2, chunk_rows, size)
    for rows_P in scored.split(chunk_rows):
        hidden_PD, index_P1 = hidden_ND[rows_P] * scale, targets_N[rows_P, None]
        logits_PV, slope_PV = buffers_2PV[:, : len(rows_P)]
        _softcapped_logits_into(logits_PV, hidden_PD, weight_VD, bias_V, softcap)
        torch.softmax(logits_PV, dim=-1, out=slope_PV)
        total += _sum_of_nats(logits_PV, slope_PV, index_P1)
        if wants_grad:
            slope_PV.scatter_add_(1, index_P1, slope_PV.new_full(index_P1.shape, -1.0))
            if softcap:
                slope_PV.mul_(1.0 - (logits_PV / softcap).square_())
            grad_ND[rows_P] = (slope_PV @ weight_VD).mul_(scale)
            grad_VD.addmm_(slope_PV.mT, hidden_PD)
            if bias_V is not None:
                grad_V.add_(slope_PV.sum(0))
    return total.float(), grad_ND, grad_VD, grad_V


@_chunked_nats_and_grads.register_fake
def _(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    scale: float,
    softcap: float,
    wants_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_V = weight_VD.new_empty(len(weight_VD) if wants_grad and bias_V is not None else 0)
    if not wants_grad:
        return hidden_ND.new_empty(()), hidden_ND.new_empty(0), weight_VD.new_empty(0), grad_V
    grads = torch.empty_like(hidden_ND), torch.empty_like(weight_VD), grad_V
    return hidden_ND.new_empty(()), *grads


def _softcapped_logits_into(
    out_PV: Tensor, scaled_PD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float
) -> None:
    if bias_V is None:
        torch.mm(scaled_PD, weight_VD.mT, out=out_PV)
    else:
        torch.addmm(bias_V, scaled_PD, weight_VD.mT, out=out_PV)
    if softcap:
        out_PV.div_(softcap).tanh_().mul_(softcap)


def _sum_of_nats(logits_PV: Tensor, probs_PV: Tensor, index_P1: Tensor) -> Tensor:
    probs_P1 = probs_PV.gather(1, index_P1)
    if bool((probs_P1 < _SMALLEST_PROB).any()):
        nats_P1 = -torch.log_softmax(logits_PV, dim=-1).gather(1, index_P1)
    else:
        nats_P1 = -probs_P1.log()
    return nats_P1.sum(dtype=torch.float64)
