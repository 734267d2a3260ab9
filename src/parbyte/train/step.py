"""One training step: a batch in, weights moved, the loss out.

Letters: B rows of this rank, T positions.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.world import World
from parbyte.kernels.document_attention import can_pack_documents, document_ends
from parbyte.kernels.transfer import send
from parbyte.text.batches import IGNORED
from parbyte.train.config import TrainConfig
from parbyte.train.device import Pace, compile_options
from parbyte.train.objective import Objective
from parbyte.train.optim import Optimizer
from parbyte.train.rounding import Rounding, relative_error, rounded


@dataclass(frozen=True)
class StepLoss:
    """This rank's part of a step's loss; over all ranks the loss is sum(nats) / sum(weight)."""

    nats: Tensor
    """Mean nats per target x weight, a scalar on the device."""
    weight: float
    """Share of this rank's positions that have a target; 1 but at the end of an epoch."""


class TrainStep:
    """Forward and backward over the batch's parts, then one optimizer step."""

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        config: TrainConfig,
        world: World,
        device: torch.device,
        rounding: Rounding | None = None,
    ) -> None:
        """Bind objective and optimizer; compiles lazily, at the first call of each kind."""
        self._model = objective.model
        self._optimizer = optimizer
        self._device = device
        self._micro_rows = config.micro_rows(world.size)
        self._forward: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]] = objective
        self._is_compiled = config.compile
        if config.compile:
            self._forward = torch.compile(
                objective, fullgraph=True, dynamic=False, options=compile_options()
            )
        model = objective.model
        self._is_packed = model.config.document_mask and can_pack_documents(
            device, model.compute_dtype
        )
        self._pace = Pace(device)
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._rounding = rounding
        self._parameters = dict(objective.model.named_parameters())
        self._qat = config.qat

    def __call__(
        self,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        factor: float,
        momentum: float,
        *,
        is_looping: bool = True,
        hardness: float | None = None,
    ) -> StepLoss:
        """Make one step on this rank's rows, int64[B, T]; targets of -100 do not count.

        factor: multiplies every rate. momentum: Muon's. is_looping: repeat the model's loop.
        hardness: let the network see rounded weights, so hard; None: exact ones.
        """
        self._model.set_looping(is_looping)
        with self._seeing(hardness):
            loss = self._learn(inputs, targets)
        self._optimizer.step_(factor, momentum, loss.weight)
        self._pace.step()
        return loss

    def rounding_error(self, hardness: float) -> float:
        """Return how far rounding would move the weights now, relative to their size."""
        assert self._rounding is not None
        exact = {name: parameter.detach() for name, parameter in self._parameters.items()}
        return relative_error(exact, self._rounding, self._qat, hardness)

    def _seeing(self, hardness: float | None) -> AbstractContextManager[None]:
        if hardness is None:
            return nullcontext()
        assert self._rounding is not None, "begin_run refuses qat without a rounding"
        return rounded(self._parameters, self._rounding, self._qat, hardness)

    def _learn(self, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> StepLoss:
        """Leave the gradients of all parts of the batch."""
        inputs_BT = send(inputs, self._device, self._side)
        targets_BT = send(targets, self._device, self._side)
        parts, num_targets = [], 0
        for start in range(0, len(inputs), self._micro_rows):
            rows = slice(start, start + self._micro_rows)
            count = int(np.count_nonzero(targets[rows] != IGNORED))
            ends_E = self._document_ends(inputs[rows])
            loss, nats = self._forward(inputs_BT[rows], targets_BT[rows], ends_E)
            share = count / targets.size
            (loss * share).backward()
            parts.append(nats.detach() * share)
            num_targets += count
        nats = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
        return StepLoss(nats, num_targets / targets.size)

    def _document_ends(self, inputs: NDArray[np.int64]) -> Tensor | None:
        """Return what packed attention needs of one part of the batch, None without it."""
        if not self._is_packed:
            return None
        ends_E = document_ends(inputs == self._model.config.bos_id)
        ends_E = send(ends_E, self._device, self._side)
        if self._is_compiled:  # else every new number of documents is a graph of its own
            torch._dynamo.mark_dynamic(ends_E, 0)
        return ends_E
