"""Healing: the weights are trained on through the grid that they will be packed on.

The forward pass sees what the artifact will hold (codes times scales); the gradient goes straight
to the float weights behind them, which move until their codes do. Scales stay, so the file's size
hardly changes. Vectors and what else is not coded move along. What is learned is the text, or what
the float model says of it, which is far less noisy: its gradient vanishes where nothing was lost.
Source: Bengio, Leonard and Courville 2013, arXiv:1308.3432 (the straight-through estimator);
Hinton, Vinyals and Dean 2015, arXiv:1503.02531 (learning from a model).
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import RecipeError
from parbyte.base.log import Console
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.quant.calibration import TrainingText
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes, dequantize, steps_of
from parbyte.quant.quantize import Quantized
from parbyte.text.batches import IGNORED, TrainBatches

_BETAS = (0.9, 0.98)
_LAST_LR = 0.1  # share of the rate that is left at the end
_SEED = 7919  # batches in another order than training's
# How far from its code a weight may start, in steps. GPTQ puts many weights into another cell than
# their nearest; begun at the border they would all jump back at the first touch.
_INSIDE = 0.3


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How the text is cut: as in training."""

    batch_tokens: int
    seq_len: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Healed:
    """What healing leaves."""

    weights: dict[str, Tensor]
    """Float32 weights; the coded ones round to their codes on the scales that were given."""
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    """Mean nats per token of the first and the last tenth of the steps."""
    moved: float
    """Share of the codes that changed."""


class _ToGrid(torch.autograd.Function):
    """Weights to codes times scales; the gradient as if nothing had been done."""

    @staticmethod
    def forward(ctx: object, weight: Tensor, scale: Tensor, limit: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (weight / scale).round_().clamp_(-limit, limit).mul_(scale)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None, None


class _Network(nn.Module):
    """A model whose forward pass ends at the log-probabilities of every token."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor) -> Tensor:
        return torch.log_softmax(self.model.logits(self.model.hidden(inputs_BT)), dim=-1)


class _Lesson:
    """What is to be learned from a batch: its text, or the float model's opinion of it."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor], source: str) -> None:
        self._model = GPT(config, seed=None)
        self._teacher: GPT | None = None
        if source == "model":
            self._teacher = GPT(config, seed=None).requires_grad_(False)
            self._teacher.load_state_dict(dict(weights))

    def loss(self, seen: Mapping[str, Tensor], inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return nats per token: cross-entropy of the text, or the distance from the teacher."""
        if self._teacher is None:
            batch = (inputs_BT, targets_BT)
            return torch.func.functional_call(self._model, dict(seen), batch)
        with torch.no_grad():
            taught_BTV = _Network(self._teacher)(inputs_BT)
        named = {f"model.{name}": tensor for name, tensor in seen.items()}
        said_BTV = torch.func.functional_call(_Network(self._model), named, (inputs_BT,))
        counts_BT = (targets_BT != IGNORED).to(said_BTV.dtype)
        distance_BT = (taught_BTV.exp() * (taught_BTV - said_BTV)).sum(-1)
        return (distance_BT * counts_BT).sum() / counts_BT.sum()


def heal(
    model_config: ModelConfig,
    weights: Mapping[str, Tensor],
    quantized: Mapping[str, Quantized],
    text: TrainingText,
    batches: Batches,
    config: QuantConfig,
    console: Console,
) -> Healed:
    """Train float weights through the grids of `quantized`, beginning at its codes.

    weights: float32, as training left them; where they lie in a cell, they begin there.
    Raises RecipeError if the loss is no longer a number.
    """
    grids = {name: item for name, item in quantized.items() if isinstance(item, Codes)}
    masters = {
        name: _begin(weight.float(), grids.get(name)).requires_grad_()
        for name, weight in weights.items()
    }
    lesson = _Lesson(model_config, weights, config.heal_from)
    optimizer = torch.optim.Adam(list(masters.values()), lr=config.heal_lr, betas=_BETAS)
    losses: list[float] = []
    watch = Stopwatch()
    with (
        closing(_open(text, batches)) as loader,
        console.progress("healing", config.heal_steps or config.heal_seconds) as progress,
    ):
        while (share := _share_done(config, len(losses), watch.elapsed_s())) < 1.0:
            optimizer.param_groups[0]["lr"] = config.heal_lr * (1.0 - (1.0 - _LAST_LR) * share)
            inputs_BT, targets_BT = (torch.from_numpy(rows) for rows in loader.next())
            loss = lesson.loss(_on_grid(masters, grids), inputs_BT, targets_BT)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            done = len(losses) if config.heal_steps else watch.elapsed_s()
            progress.update(done, {"step": f"{len(losses):,}", "loss": f"{losses[-1]:.4f}"})
    return _result(masters, grids, losses, watch.elapsed_s(), console)


def _share_done(config: QuantConfig, steps: int, elapsed_s: float) -> float:
    """Return how much of the budget is spent; a step that would not fit is not begun."""
    if config.heal_steps:
        return steps / config.heal_steps
    next_s = elapsed_s / steps if steps else 0.0
    return 1.0 if elapsed_s + next_s > config.heal_seconds else elapsed_s / config.heal_seconds


def _begin(weight: Tensor, grid: Codes | None) -> Tensor:
    """Return the nearest weight that rounds to the given code; the weight where there is none."""
    if grid is None:
        return weight.clone()
    step, centre = steps_of(grid), grid.codes.float()
    return (weight / step).clamp(centre - _INSIDE, centre + _INSIDE) * step


def _on_grid(masters: Mapping[str, Tensor], grids: Mapping[str, Codes]) -> dict[str, Tensor]:
    seen = dict(masters)
    for name, grid in grids.items():
        seen[name] = _ToGrid.apply(masters[name], steps_of(grid), grid.limit)
    return seen


def _open(text: TrainingText, batches: Batches) -> TrainBatches:
    return TrainBatches(
        text.stream,
        bos_id=text.bos_id,
        batch_tokens=batches.batch_tokens,
        seq_len=batches.seq_len,
        seed=batches.seed + _SEED,
    )


@torch.no_grad()
def _result(
    masters: Mapping[str, Tensor],
    grids: Mapping[str, Codes],
    losses: list[float],
    seconds: float,
    console: Console,
) -> Healed:
    if not losses or not all(loss < float("inf") for loss in losses):
        what = "made no step" if not losses else "diverged"
        remedy = "raise 'quant.heal_seconds'" if not losses else "lower 'quant.heal_lr'"
        raise RecipeError(f"healing {what}: {remedy}")
    unreached = [name for name, master in masters.items() if master.grad is None]
    assert not unreached, f"healing reaches every weight, not so {unreached}"
    seen = _on_grid(masters, grids)
    moved = sum(int((seen[n] != dequantize(grid)).sum()) for n, grid in grids.items())
    total = sum(grid.codes.numel() for grid in grids.values())
    tenth = max(1, len(losses) // 10)
    healed = Healed(
        weights={name: master.detach().clone() for name, master in masters.items()},
        steps=len(losses),
        seconds=seconds,
        first_loss=sum(losses[:tenth]) / tenth,
        last_loss=sum(losses[-tenth:]) / tenth,
        moved=moved / max(1, total),
    )
    console.say(
        f"healed {healed.steps:,} steps in {seconds:.1f} s: loss {healed.first_loss:.4f} -> "
        f"{healed.last_loss:.4f} nats, {healed.moved:.1%} of the codes moved"
    )
    return healed
