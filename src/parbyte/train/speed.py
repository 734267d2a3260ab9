"""How fast this machine is: a matrix product, and the steps of a training that leaves nothing."""

from collections.abc import Callable
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch, now_s
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.train.average import new_average
from parbyte.train.config import TrainConfig
from parbyte.train.device import pick_device, pick_dtype, set_arithmetic, set_threads, synchronize
from parbyte.train.objective import Objective
from parbyte.train.optim import build_optimizer
from parbyte.train.step import TrainStep

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]

_MEASURE_S = 0.5
_UNTIMED_STEPS = 2


def matmul_flops(dtype: torch.dtype, device: torch.device, size: int) -> float:
    """Return the operations per second of a square matrix product on random data."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(left, right)
    synchronize(device)
    watch, count = Stopwatch(), 0
    while watch.elapsed_s() < _MEASURE_S:
        # Several at a time: waiting after each would let a GPU idle in between.
        for _ in range(4):
            torch.mm(left, right)
        synchronize(device)
        count += 4
    return 2 * size**3 * count / watch.elapsed_s()


class Rehearsal:
    """A recipe's training without data, clock, log or result: steps to be timed.

    next_batch: where batches come from; None makes tokens up, frequent ones and rare ones.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        next_batch: Callable[[], Batch] | None = None,
    ) -> None:
        """Build everything for world size 1; the first steps of each kind compile."""
        self.config = config
        self.device = pick_device(config.device, World())
        set_threads(config.threads, World())
        dtype = pick_dtype(config.dtype, self.device)
        set_arithmetic(self.device, dtype)
        self.model = GPT(model_config, seed=config.seed).to(self.device)
        self.model.set_compute_dtype(dtype)
        self.model.set_dropout(config.dropout)
        objective = Objective(self.model, config.mtp_heads, config.mtp_weight)
        optimizer = build_optimizer(objective, objective.roles(), config, World())
        parameters = dict(self.model.named_parameters())
        self._average = new_average(parameters, config)
        self._step = TrainStep(objective, optimizer, config, World(), self.device)
        self._next_batch = next_batch or self._made_up_batch

    def step_seconds(self, steps: int, *, is_looping: bool) -> float:
        """Return the median time of a step, after some untimed ones that also compile."""
        for _ in range(_UNTIMED_STEPS):
            self._make_step(is_looping)
        synchronize(self.device)
        if self.device.type == "cuda":
            return self._by_events(steps, is_looping)
        times_s = []
        for _ in range(steps):
            started_at = now_s()
            self._make_step(is_looping)
            times_s.append(now_s() - started_at)
        return median(times_s)

    def _by_events(self, steps: int, is_looping: bool) -> float:
        # A wait between steps would show the host's work, which a training hides.
        events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        events[0].record()
        for event in events[1:]:
            self._make_step(is_looping)
            event.record()
        synchronize(self.device)
        return median(a.elapsed_time(b) for a, b in pairwise(events)) / 1e3

    def _make_step(self, is_looping: bool) -> None:
        # A rate near zero: the weights stay finite, however long this goes on.
        inputs, targets = self._next_batch()
        self._step(inputs, targets, 1e-6, self.config.momentum, is_looping=is_looping)
        if self._average is not None:
            self._average.update_(0)

    def _made_up_batch(self) -> Batch:
        config, vocab_size = self.config, self.model.config.vocab_size
        shape = (config.batch_tokens // config.seq_len, config.seq_len + 1)
        draws = np.random.Generator(np.random.PCG64(0)).random(shape)
        tokens = (float(vocab_size) ** draws).astype(np.int64) % vocab_size
        tokens[:, 0] = self.model.config.bos_id
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()


def steps_in_budget(config: TrainConfig, plain_s: float, looping_s: float) -> int:
    """Return how many steps fit, `loop_at` of the budget without the loop and the rest with it."""
    if config.steps:
        return config.steps
    plain = config.seconds * config.loop_at / plain_s
    return int(plain + config.seconds * (1.0 - config.loop_at) / looping_s)
