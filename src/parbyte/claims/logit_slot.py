"""SLOT in logit space by L-BFGS: one vector over the vocabulary for a batch, called causal.

Shapes: B windows of a batch, L window, M scored places, K fitted places, V vocab.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.claimed import Base, Claimed
from parbyte.claims.windows import Batch, Windows, claim


@dataclass(frozen=True, kw_only=True)
class LogitSlot:
    """Settings of L-BFGS SLOT; the defaults are PR 1350's (windows in batches of 32)."""

    phases: tuple[tuple[int, int], ...] = setting(
        ((25, 20),), doc="(iterations, history) of each L-BFGS; none knows the others' history"
    )
    focal: int = setting(128, low=1, doc="only the last columns of a window are fitted")
    clamp: float = setting(5.0, low=0.0, doc="largest entry of the vector after a fit")
    reads_scored: bool = setting(False, doc="fit the scored slice too, as PR 1318 does")


CASCADE = LogitSlot(phases=((5, 10), (18, 20)))
"""The two phases of PR 1372 (card 8): 5 iterations, then 18 with a fresh history."""


def logit_slot(model: Base, stream_N: Tensor, windows: Windows, settings: LogitSlot) -> Claimed:
    """Fit a logit vector to the columns [L - focal, first scored) of a batch; score with it.

    The fit starts from the previous batch's clamped vector. With focal = 2 S a window's fitted
    slice is exactly the scored slice of the window before it: 31 of 32 scored slices are fitted.
    A batch without such columns is scored with the vector as it stands.

    Breaks C1 and C3 (T1 across the windows of a batch). Source: cards 7 and 8; PR 1350, 1372, 1318.
    """
    carried: Tensor | None = None

    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        nonlocal carried
        column_L = torch.arange(windows.window, device=hidden_BLD.device)
        end_B = batch.lengths_B if settings.reads_scored else batch.first_B
        is_focal_L = column_L >= windows.window - settings.focal
        is_fitted_BL = is_focal_L & (column_L < end_B[:, None])
        with torch.no_grad():
            scored_MV = model.logits(hidden_BLD[batch.row_M, batch.column_M])
            fitted_KV = model.logits(hidden_BLD[is_fitted_BL])
        start_V = torch.zeros_like(scored_MV[0]) if carried is None else carried
        carried = _fit(fitted_KV, batch.answers_BL[is_fitted_BL], start_V, settings)
        return scored_MV + carried

    return claim(model, windows.batches(stream_N), fit)


def _fit(fitted_KV: Tensor, answers_K: Tensor, start_V: Tensor, settings: LogitSlot) -> Tensor:
    """Return the clamped vector that makes the answers likely."""
    if not len(answers_K):
        return start_V
    delta_V = start_V.clone().requires_grad_()

    def loss() -> Tensor:
        delta_V.grad = None
        value = F.cross_entropy(fitted_KV + delta_V, answers_K)
        value.backward()
        return value

    for iterations, history in settings.phases:
        optimizer = torch.optim.LBFGS(
            [delta_V],
            lr=1.0,
            max_iter=iterations,
            history_size=history,
            tolerance_change=1e-9,
            tolerance_grad=1e-7,
            line_search_fn="strong_wolfe",
        )
        first = optimizer.step(loss)
        if not torch.isfinite(first):
            break
    return delta_V.detach().nan_to_num(0.0).clamp(-settings.clamp, settings.clamp)
