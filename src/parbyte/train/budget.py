"""One clock for all ranks: how far the run is, and what is due before the next step.

Rank 0 reads the clock and decides; the others follow. On the CPU that happens before every step,
with several GPUs every few steps (asking drains their queues), and progress runs on in between.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import torch

from parbyte.base.clock import Stopwatch
from parbyte.base.world import World, broadcast_floats
from parbyte.train.config import TrainConfig
from parbyte.train.device import STEPS_IN_FLIGHT, synchronize

_STEPS_BETWEEN_QUESTIONS = 8
# In steps: the next one may take longer than the last ones did, and the budget is a limit.
_STEP_MARGIN = 0.25
_STEP_MEMORY = 0.9


@dataclass(frozen=True)
class Tick:
    """What rank 0 decided before a step; flags are 0.0 or 1.0, so that it travels as floats."""

    elapsed_s: float
    progress: float
    progress_per_step: float
    num_steps: float
    """Steps to make before the next decision."""
    log: float = 0.0
    develop: float = 0.0
    save: float = 0.0
    stop: float = 0.0


class _Alarm:
    """Rings when an interval has passed since it last rang; an endless interval never does."""

    def __init__(self, interval_s: float, now_s: float) -> None:
        self._interval_s = interval_s
        self._rang_at_s = now_s

    def rings(self, now_s: float) -> bool:
        if now_s - self._rang_at_s < self._interval_s:
            return False
        self._rang_at_s = now_s
        return True


class Budget:
    """The run's clock, in seconds or steps."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        device: torch.device,
        *,
        step: int = 0,
        elapsed_s: float = 0.0,
    ) -> None:
        """Start the clock for the step after `step` steps that took `elapsed_s`."""
        self._config = config
        self._world = world
        self._device = device
        self._watch = Stopwatch()
        self._watch.add_s(elapsed_s)
        asks_often = world.size == 1 or device.type == "cpu"
        self._stride = 1 if asks_often else _STEPS_BETWEEN_QUESTIONS
        self._steps_ahead = STEPS_IN_FLIGHT if device.type == "cuda" else 0
        self._step_s = elapsed_s / step if step else 0.0
        self._first_step = self._decided_at_step = step
        self._decided = Tick(elapsed_s, 0.0, 0.0, num_steps=0.0)
        self._log_alarm = _Alarm(config.log_every_seconds, elapsed_s)
        self._develop_alarm = _Alarm(config.dev_every_seconds or math.inf, elapsed_s)
        self._save_alarm = _Alarm(config.checkpoint_seconds or math.inf, elapsed_s)

    def elapsed_s(self) -> float:
        """Return the training seconds so far; what happens in `outside` is not counted."""
        return self._watch.elapsed_s()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Stop the clock for the block, after the device has done what it was asked."""
        synchronize(self._device)
        self._watch.pause()
        try:
            yield
        finally:
            synchronize(self._device)
            self._watch.resume()

    def tick(self, step: int) -> Tick:
        """Return what is due after `step` steps; the same on every rank."""
        ahead = step - self._decided_at_step
        if ahead < self._decided.num_steps:
            progress = self._decided.progress + ahead * self._decided.progress_per_step
            return Tick(self.elapsed_s(), min(1.0, progress), 0.0, num_steps=0.0)
        decided = astuple(self._decide(step)) if self._world.is_main else (0.0,) * 8
        decided = broadcast_floats(self._world, list(decided), self._device.type)
        self._decided = Tick(*decided)
        self._decided_at_step = step
        return self._decided

    def _decide(self, step: int) -> Tick:
        elapsed_s = self.elapsed_s()
        self._estimate_step(step, elapsed_s)
        if self._config.steps:
            steps_left = float(self._config.steps - step)
            progress, per_step = step / self._config.steps, 1.0 / self._config.steps
        else:
            steps_left = self._steps_that_fit(step, elapsed_s)
            progress = min(1.0, elapsed_s / self._config.seconds)
            per_step = self._step_s / self._config.seconds
        stop = steps_left < 1
        is_new = step > self._first_step
        develop = is_new and self._develop_alarm.rings(elapsed_s)
        save = is_new and (self._save_alarm.rings(elapsed_s) or stop)
        log = is_new and self._log_alarm.rings(elapsed_s)
        return Tick(
            elapsed_s=elapsed_s,
            progress=progress,
            progress_per_step=per_step,
            num_steps=max(1.0, min(self._stride, math.floor(steps_left))),
            log=float(log or develop or (stop and is_new)),
            develop=float(self._config.dev_tokens > 0 and (develop or stop)),
            save=float(self._config.checkpoint_seconds > 0 and save),
            stop=float(stop),
        )

    def _estimate_step(self, step: int, elapsed_s: float) -> None:
        num_steps = step - self._decided_at_step
        if num_steps == 0:
            return
        latest_s = (elapsed_s - self._decided.elapsed_s) / num_steps
        memory = _STEP_MEMORY if self._step_s else 0.0
        self._step_s = memory * self._step_s + (1.0 - memory) * latest_s

    def _steps_that_fit(self, step: int, elapsed_s: float) -> float:
        left_s = self._config.seconds - elapsed_s
        if self._step_s == 0.0:
            return 1.0 if left_s > 0 or step == 0 else 0.0
        return left_s / self._step_s - self._steps_ahead - _STEP_MARGIN
