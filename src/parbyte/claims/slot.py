"""SLOT: a vector added to the last hidden states, fitted to the text it then scores.

Shapes: B windows of a batch, L window, M scored places, K fitted places, D model_dim, V vocab.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.claimed import Base, Claimed
from parbyte.claims.windows import Batch, Windows, claim


@dataclass(frozen=True, kw_only=True)
class SampleSlot:
    """Settings of per-sample SLOT; the defaults are PR 1430's."""

    steps: int = setting(24, low=2, doc="AdamW steps on each batch")
    lr: float = setting(0.432, low=0.0, doc="rate of the first step")
    min_lr: float = setting(0.001, low=0.0, doc="rate of the last step; between them a cosine")
    beta1: float = setting(0.6, low=0.0, high=0.9999, doc="AdamW's first-moment memory")
    beta2: float = setting(0.5, low=0.0, high=0.9999, doc="AdamW's second-moment memory")
    eps: float = setting(1e-5, low=0.0, doc="AdamW's epsilon; not small beside the gradients")
    weight_decay: float = setting(1e-8, low=0.0, doc="AdamW's decoupled decay")
    bfloat16: bool = setting(
        False, doc="round hidden states, vectors and logits to bfloat16 as under autocast"
    )

    def lr_at(self, step: int) -> float:
        """Return the rate of a step, min_lr + (lr - min_lr) (1 + cos(pi k / (steps - 1))) / 2."""
        cosine = (1.0 + math.cos(math.pi * step / (self.steps - 1))) / 2.0
        return self.min_lr + (self.lr - self.min_lr) * cosine


def per_sample_slot(
    model: Base, stream_N: Tensor, windows: Windows, settings: SampleSlot
) -> Claimed:
    """Fit a vector and a logit bias to each window's scored slice, then score the slice with them.

    All but one of a full window's 64 scored tokens are in the objective: it leaves out the window's
    last column. The objective is the mean over the batch, so eps makes the batch's size matter.

    Breaks C1 and C3 (T1, T2). Source: card 4; PR 1430, 1329, 1313, 1229.
    """

    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        hidden_MD = hidden_BLD[batch.row_M, batch.column_M]
        if settings.bfloat16:
            hidden_MD = hidden_MD.bfloat16()
        return _fit_rows(model, batch, hidden_MD, settings)

    return claim(model, windows.batches(stream_N), fit)


def _fit_rows(model: Base, batch: Batch, hidden_MD: Tensor, settings: SampleSlot) -> Tensor:
    dtype = torch.promote_types(hidden_MD.dtype, torch.float32)
    num_windows, window = batch.inputs_BL.shape
    vocab_size = model.logits(hidden_MD[:1]).shape[-1]

    def zeros(width: int) -> Tensor:
        shape = (num_windows, width)
        return torch.zeros(shape, dtype=dtype, device=hidden_MD.device, requires_grad=True)

    delta_BD, bias_BV = zeros(hidden_MD.shape[-1]), zeros(vocab_size)

    def logits() -> Tensor:
        moved_MD = hidden_MD + delta_BD[batch.row_M].to(hidden_MD.dtype)
        logits_MV = model.logits(moved_MD).to(hidden_MD.dtype)
        return (logits_MV + bias_BV[batch.row_M].to(hidden_MD.dtype)).to(dtype)

    optimizer = torch.optim.AdamW(
        [delta_BD, bias_BV],
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    weight_M = (batch.column_M < window - 1).to(dtype)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr_at(step)
        optimizer.zero_grad()
        nats_M = F.cross_entropy(logits(), batch.answers_M, reduction="none")
        loss = (nats_M * weight_M).sum() / weight_M.sum().clamp(min=1.0)
        loss.backward(inputs=[delta_BD, bias_BV])
        optimizer.step()
    with torch.no_grad():
        return logits()


@dataclass(frozen=True, kw_only=True)
class SharedSlot:
    """Settings of SLOT with one vector for a batch; the defaults are PR 1306's."""

    steps: int = setting(8, low=1, doc="AdamW steps on each batch")
    lr: float = setting(0.005, low=0.0, doc="rate")
    beta1: float = setting(0.3, low=0.0, high=0.9999, doc="AdamW's first-moment memory")
    beta2: float = setting(0.9, low=0.0, high=0.9999, doc="AdamW's second-moment memory")
    eps: float = setting(1e-5, low=0.0, doc="AdamW's epsilon")
    weight_decay: float = setting(1e-8, low=0.0, doc="AdamW's decoupled decay")


def standard_slot(model: Base, stream_N: Tensor, windows: Windows, settings: SharedSlot) -> Claimed:
    """Fit one vector to all of a batch's windows, the scored slices among them, then score those.

    Breaks C1 and C3 (T1). Source: card 5; PR 1084, 1128, 1172, 1176, 1209.
    """

    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        is_fitted_BL = torch.ones_like(batch.inputs_BL, dtype=torch.bool)
        is_fitted_BL[:, -1] = False
        return _fit_shared(model, batch, hidden_BLD, is_fitted_BL, settings)

    return claim(model, windows.batches(stream_N), fit)


def shared_context_slot(
    model: Base, stream_N: Tensor, windows: Windows, settings: SharedSlot
) -> Claimed:
    """Fit one vector to the contexts of a batch of overlapping windows, then score their slices.

    Called causal, and it is for a batch of one. In a larger one, a window's scored slice is part of
    the contexts of all windows behind it, so nearly every slice is in the objective.

    Breaks C1 and C3 (T1 across the windows of a batch). Source: card 6; PR 1306, 1217, 1333, 1322.
    """

    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        column_L = torch.arange(windows.window, device=hidden_BLD.device)
        is_fitted_BL = column_L < batch.first_B[:, None]
        return _fit_shared(model, batch, hidden_BLD, is_fitted_BL, settings)

    return claim(model, windows.batches(stream_N), fit)


def _fit_shared(
    model: Base, batch: Batch, hidden_BLD: Tensor, is_fitted_BL: Tensor, settings: SharedSlot
) -> Tensor:
    fitted_KD, answers_K = hidden_BLD[is_fitted_BL], batch.answers_BL[is_fitted_BL]
    dtype = torch.promote_types(hidden_BLD.dtype, torch.float32)
    shape = hidden_BLD.shape[-1]
    delta_D = torch.zeros(shape, dtype=dtype, device=hidden_BLD.device, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [delta_D],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    for _ in range(settings.steps if len(answers_K) else 0):
        optimizer.zero_grad()
        logits_KV = model.logits(fitted_KD + delta_D.to(fitted_KD.dtype))
        F.cross_entropy(logits_KV, answers_K).backward(inputs=[delta_D])
        optimizer.step()
    with torch.no_grad():
        scored_MD = hidden_BLD[batch.row_M, batch.column_M]
        return model.logits(scored_MD + delta_D.to(scored_MD.dtype))
