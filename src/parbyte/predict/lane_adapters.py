"""Low-rank adapters of every lane, and the Adam that moves each lane by its own clock.

Shapes: B lanes, T positions, I inputs and O outputs of a matrix, R rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.model.attention import BlockWeights
from parbyte.model.gpt import GPT
from parbyte.model.lanes import LaneMatrix
from parbyte.predict.adapter_config import LoraConfig


@dataclass
class _Moving:
    """One tensor [B, ...] with what Adam remembers of it, and what a fresh lane starts with."""

    value: Tensor
    first: Tensor
    second: Tensor
    fresh: Tensor


class LaneAdapters:
    """down [B, R, I] and up [B, O, R] for the chosen matrices of every block.

    Every lane starts with the same numbers, drawn on the CPU with a fixed seed.
    """

    def __init__(self, model: GPT, settings: LoraConfig, num_lanes: int) -> None:
        """Make fresh adapters for all lanes."""
        self._settings = settings
        device = model.embed.table.device
        self._steps_B = torch.zeros(num_lanes, device=device)
        self._moving: dict[tuple[int, str], tuple[_Moving, _Moving]] = {}
        generator = torch.Generator().manual_seed(0)
        for layer, block in enumerate(model.blocks):
            weights: BlockWeights = block.weights(torch.float32)  # type: ignore[operator]
            for part in settings.parts:
                num_out, num_in = getattr(weights, part).shape
                bound = 1.0 / math.sqrt(num_in)
                down_RI = torch.rand(settings.rank, num_in, generator=generator) * 2 - 1
                fresh = (down_RI * bound, torch.zeros(num_out, settings.rank))
                self._moving[layer, part] = (
                    _start(fresh[0].to(device), num_lanes),
                    _start(fresh[1].to(device), num_lanes),
                )

    def parameters(self) -> list[Tensor]:
        """Return the live tensors, ready to be differentiated."""
        return [part.value for pair in self._moving.values() for part in pair]

    def adapt(self, layer: int, weights: BlockWeights, is_own_BT: Tensor) -> BlockWeights:
        """Return a block's matrices with each lane's part, at the positions that are its own."""
        scale = self._settings.alpha / self._settings.rank
        gate_BT1 = is_own_BT[..., None]
        changed = {}
        for part in self._settings.parts:
            shared = getattr(weights, part)
            down, up = self._moving[layer, part]
            changed[part] = LaneMatrix(
                shared,
                down.value.to(shared.dtype),
                (up.value * scale).to(shared.dtype),
                gate_BT1.to(shared.dtype),
            )
        return weights._replace(**changed)

    @torch.no_grad()
    def reset_(self, is_new_B: Tensor) -> None:
        """Give these lanes fresh adapters and an Adam without memory."""
        self._steps_B = self._steps_B.masked_fill(is_new_B, 0.0)
        for part in (part for pair in self._moving.values() for part in pair):
            is_new = is_new_B[:, None, None]
            part.value.copy_(torch.where(is_new, part.fresh, part.value))
            part.first.masked_fill_(is_new, 0.0)
            part.second.masked_fill_(is_new, 0.0)

    @torch.no_grad()
    def step_(self, grads: list[Tensor], is_learning_B: Tensor) -> None:
        """Take one Adam step with decoupled decay in the lanes that learn; leave the others."""
        settings = self._settings
        self._steps_B = self._steps_B + is_learning_B
        steps_B11 = self._steps_B.clamp(min=1)[:, None, None]
        learning = is_learning_B[:, None, None]
        moving = [part for pair in self._moving.values() for part in pair]
        for part, grad in zip(moving, grads, strict=True):
            first = torch.lerp(grad, part.first, settings.beta1)
            second = torch.lerp(grad.square(), part.second, settings.beta2)
            mean = first / (1 - settings.beta1**steps_B11)
            root = (second / (1 - settings.beta2**steps_B11)).sqrt()
            value = part.value * (1 - settings.lr * settings.weight_decay)
            value = value - settings.lr * mean / (root + settings.eps)
            part.first = torch.where(learning, first, part.first)
            part.second = torch.where(learning, second, part.second)
            part.value.copy_(torch.where(learning, value, part.value))


def _start(fresh: Tensor, num_lanes: int) -> _Moving:
    value = fresh.expand(num_lanes, *fresh.shape).clone().requires_grad_(True)
    zeros = torch.zeros(value.shape, device=fresh.device)
    return _Moving(value, zeros, zeros.clone(), fresh)
