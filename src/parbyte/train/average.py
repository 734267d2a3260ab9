"""An exponential moving average of the weights whose memory grows with the run, or to a limit."""

# torch leaves its list operations (_foreach_*) out of its public names.
# pyright: reportPrivateImportUsage=false

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from parbyte.train.config import TrainConfig


def new_average(weights: Mapping[str, Tensor], config: TrainConfig) -> "WeightAverage | None":
    """Start the average that a recipe asks for, if it asks for one."""
    if config.ema_decay:
        return WeightAverage(weights, 1.0, longest=1.0 / (1.0 - config.ema_decay))
    return WeightAverage(weights, config.ema) if config.ema else None


class WeightAverage:
    """Average weights with a memory of `memory` x the steps so far.

    After step t (from 0):  average <- average + (weights - average) / max(1, memory (t + 1)).
    The rate is 1 until memory (t + 1) > 1, so nothing of the first weights remains and no
    bias correction is needed; the profile over the run is the same whatever the run's length:
    the weights at fraction s of the run count in proportion to s^(1/memory - 1).
    longest: steps that the memory never exceeds. With memory 1 that is a running mean which turns
    into the usual average of decay 1 - 1 / longest once there are so many steps.
    Source: power-function averaging, Karras et al. 2023, arXiv:2312.02696, section 3.1.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], memory: float, longest: float = math.inf
    ) -> None:
        """Start an average of live float32 weights; memory in (0, 1]."""
        self.num_updates = 0
        self._memory = memory
        self._longest = longest
        self._names = list(weights)
        self._weights = [weight.detach() for weight in weights.values()]
        self._averages = [weight.clone() for weight in self._weights]

    def update_(self, step: int) -> None:
        """Take in the weights after `step`, counted from 0; call it after every step."""
        rate = 1.0 / max(1.0, min(self._memory * (step + 1), self._longest))
        torch._foreach_lerp_(self._averages, self._weights, rate)
        self.num_updates += 1

    def weights(self) -> dict[str, Tensor]:
        """Return the live averages by name; not copies."""
        return dict(zip(self._names, self._averages, strict=True))
