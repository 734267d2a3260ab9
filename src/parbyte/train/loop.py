"""The training loop: batches in, averaged weights out, within a budget.

loader -> step (forward, backward, optimizer) -> average; between steps the budget says when to
log, measure, save and stop. A run folder with a matching checkpoint is resumed.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.base.log import Console, Progress
from parbyte.base.world import World, barrier
from parbyte.model.config import ModelConfig
from parbyte.train.budget import Budget, Tick
from parbyte.train.config import TrainConfig
from parbyte.train.develop import Development
from parbyte.train.device import peak_memory_bytes, seed_noise, synchronize
from parbyte.train.journal import Journal, LogLine
from parbyte.train.rounding import Rounding
from parbyte.train.schedule import (
    is_looping,
    is_warming_down,
    lr_factor,
    momentum_at,
    qat_hardness,
)
from parbyte.train.state import Run, begin_run, resume_, save
from parbyte.train.step import TrainStep
from parbyte.train.warmup import warm_up


@dataclass(frozen=True)
class TrainResult:
    """What training leaves."""

    weights: dict[str, Tensor]
    """Averaged float32 CPU tensors, by parameter name."""
    steps: int
    seconds: float
    """On the budget's clock: compilation and development figures left out."""
    tokens: int
    """Positions trained on, with repetition."""
    final_loss: float
    """Mean nats per token of the last 20 steps."""
    dev_bpb: float | None
    """Bits per byte of `weights` on the development slice; None if it was not measured."""
    tokens_per_second: float
    peak_memory_bytes: int
    qat_from: int | None
    """First step that saw rounded weights; None without qat."""


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    data_folder: Path,
    run_folder: Path,
    *,
    world: World,
    console: Console,
    rounding: Rounding | None = None,
) -> TrainResult:
    """Train a model on a prepared data folder and return its averaged weights.

    Writes run_folder/log.jsonl and run_folder/checkpoint/. A checkpoint of the same model, recipe
    and text is resumed; any other is dropped, and that is said.
    rounding: what `train.qat` lets the network see.
    Raises RecipeError when the batch does not divide over the ranks, the loss diverges or qat never
    turns on.
    """
    console = console if world.is_main else Console(quiet=True)
    checkpoints = run_folder / "checkpoint"
    run = begin_run(
        model_config,
        config,
        data_folder,
        checkpoints,
        world=world,
        console=console,
        rounding=rounding,
    )
    with closing(run.loader):
        resume_(run)
        development = Development(data_folder, config, world, run.device)
        train_step = TrainStep(
            run.objective, run.optimizer, config, world, run.device, run.rounding
        )
        if config.compile or run.device.type == "cuda":
            console.say("training: compiling and warming up, outside the clock")
            warm_up(train_step, run.tensors(), config, run.model.config, world)
        barrier(world)
        journal = Journal(run_folder / "log.jsonl", run.step) if world.is_main else None
        budget = Budget(config, world, run.device, step=run.step, elapsed_s=run.resumed_s)
        with console.progress("training", config.steps or config.seconds) as progress:
            onlooker = _Onlooker(run, budget, development, journal, progress)
            _make_steps(run, train_step, budget, onlooker)
    return _result(run, budget)


class _Onlooker:
    """What happens between steps: figures, log, checkpoints."""

    def __init__(
        self,
        run: Run,
        budget: Budget,
        development: Development,
        journal: Journal | None,
        progress: Progress,
    ) -> None:
        self._run = run
        self._budget = budget
        self._development = development
        self._journal = journal
        self._progress = progress
        self._logged_step, self._logged_s = run.step, run.resumed_s

    def look(self, tick: Tick) -> None:
        """Do what the tick asks for; raises RecipeError if the loss is no longer a number."""
        if not (tick.log or tick.develop or tick.save):
            return
        losses = self._run.recent_losses()
        loss = sum(losses) / len(losses)
        self._check(loss)
        bpb = self._measure() if tick.develop else None
        if tick.log:
            self._log(tick, loss, bpb)
        if tick.save:
            save(self._run, self._budget.elapsed_s(), losses)

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RecipeError(
                f"training diverged: the loss is {loss} at step {self._run.step:,}; lower "
                "'train.matrix_lr' and 'train.embed_lr', or set 'train.grad_clip' to 1"
            )

    def _measure(self) -> float | None:
        with self._budget.outside():
            bpb = self._development.bpb(self._run.model, self._run.weights())
        self._run.dev_bpb = bpb
        return bpb

    def _log(self, tick: Tick, loss: float, bpb: float | None) -> None:
        run = self._run
        tokens = (run.step - self._logged_step) * run.config.batch_tokens
        seconds = tick.elapsed_s - self._logged_s
        self._logged_step, self._logged_s = run.step, tick.elapsed_s
        line = LogLine(
            step=run.step,
            seconds=tick.elapsed_s,
            loss=loss,
            lr=run.config.matrix_lr * lr_factor(run.config, run.step, tick.progress),
            qat=qat_hardness(run.config, tick.progress) is not None,
            tokens_per_s=tokens / seconds if seconds > 0 else 0.0,
            dev_bpb=bpb,
        )
        if self._journal is not None:
            self._journal.append(line)
        figures = {"step": f"{line.step:,}", "loss": f"{line.loss:.4f}"}
        if run.dev_bpb is not None:
            figures["dev bpb"] = f"{run.dev_bpb:.4f}"
        figures["tokens/s"] = f"{line.tokens_per_s:,.0f}"
        self._progress.update(float(run.step) if run.config.steps else line.seconds, figures)


def _make_steps(run: Run, train_step: TrainStep, budget: Budget, onlooker: _Onlooker) -> None:
    config = run.config
    first_step, is_falling = run.step, False
    while True:
        tick = budget.tick(run.step)
        onlooker.look(tick)
        if tick.stop:
            break
        inputs, targets = run.loader.next()
        factor = lr_factor(config, run.step, tick.progress)
        hardness = qat_hardness(config, tick.progress)
        if hardness is not None and run.qat_from is None:
            _begin_rounding(run, train_step, hardness)
        if config.dropout or config.qat == "noise":
            seed_noise(config.seed, run.step, run.world)
        loss = train_step(
            inputs,
            targets,
            factor,
            momentum_at(config, run.step),
            is_looping=is_looping(config, tick.progress),
            hardness=hardness,
        )
        if run.average is not None:
            run.average.update_(run.step)
        run.recent.append(loss)
        is_falling = is_warming_down(config, tick.progress)
        run.step += 1
    num_made = run.step - first_step
    assert run.average is None or run.average.num_updates == num_made, "every step is averaged"
    if config.warmdown and num_made and not is_falling:
        run.console.say(
            f"training: {run.step:,} steps were too few to reach the warm-down; "
            "raise the budget or lower 'train.batch_tokens'"
        )


def _begin_rounding(run: Run, train_step: TrainStep, hardness: float) -> None:
    run.qat_from = run.step
    error = train_step.rounding_error(hardness)
    assert error > 0.0, "rounding moves weights"
    run.console.say(
        f"training: qat = '{run.config.qat}' is on from step {run.step:,}, "
        f"it moves the weights by {error:.2%} of their size"
    )


def _result(run: Run, budget: Budget) -> TrainResult:
    synchronize(run.device)
    seconds = budget.elapsed_s()
    if run.config.qat != "off" and run.qat_from is None:
        raise RecipeError(
            f"training: qat = '{run.config.qat}' never turned on, {run.step:,} steps were too few; "
            "raise the budget, or set 'train.qat_below' higher or 'train.qat' to 'off'"
        )
    losses = run.recent_losses()
    tokens = run.step * run.config.batch_tokens
    result = TrainResult(
        weights={name: t.float().cpu().clone() for name, t in run.weights().items()},
        steps=run.step,
        seconds=seconds,
        tokens=tokens,
        final_loss=sum(losses) / len(losses),
        dev_bpb=run.dev_bpb,
        tokens_per_second=tokens / seconds,
        peak_memory_bytes=peak_memory_bytes(run.device),
        qat_from=run.qat_from,
    )
    bpb = "" if result.dev_bpb is None else f", development {result.dev_bpb:.4f} bpb"
    run.console.say(
        f"trained {result.steps:,} steps in {seconds:.1f} s, {result.tokens_per_second:,.0f} "
        f"tokens/s; loss {result.final_loss:.4f} nats{bpb}"
    )
    return result
