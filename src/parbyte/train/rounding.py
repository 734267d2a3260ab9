"""Quantisation-aware training: the network sees rounded weights, the optimizer moves exact ones.

How weights are rounded is not known here: the room that packs them passes it in as a `Rounding`.
The exchange happens around forward and backward, outside any compiled graph, so that there is no
flag which a compiler could take for a constant.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parbyte.base.errors import RecipeError
from parbyte.train.config import TrainConfig


class Seen(NamedTuple):
    """A weight as the network sees it."""

    value: Tensor
    slope: Tensor | None = None
    """Its derivative by the exact weight; None passes the gradient straight through."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What the artifact will make of weights."""

    see: Callable[[Mapping[str, Tensor], str, float], dict[str, Seen]]
    """(weights by name, `train.qat`, hardness 0..1) -> those that will be coded, as they look."""
    settings: Mapping[str, Any]
    """What else the look depends on, as plain values: another grid is another training."""


def required(rounding: Rounding | None, config: TrainConfig) -> Rounding | None:
    """Return what training rounds with, or None if it does not.

    Raises RecipeError if the recipe wants rounded weights and nobody says how.
    """
    if config.qat == "off":
        return None
    if rounding is None:
        raise RecipeError(
            f"'train.qat' is '{config.qat}', but this training was given no grid to round on; "
            "start it with `parbyte run`, or set 'train.qat' to 'off'"
        )
    return rounding


@contextmanager
def rounded(
    parameters: Mapping[str, nn.Parameter], rounding: Rounding, kind: str, hardness: float
) -> Iterator[None]:
    """Let the parameters be rounded inside the block, and exact again after it.

    The gradients that the block leaves are turned into those of the exact weights.
    """
    with torch.no_grad():
        exact = {name: parameter.detach() for name, parameter in parameters.items()}
        seen = rounding.see(exact, kind, hardness)
        kept = {name: exact[name].clone() for name in seen}
        for name, (value, _) in seen.items():
            exact[name].copy_(value)
    try:
        yield
    finally:
        for name, weight in kept.items():
            exact[name].copy_(weight)
    for name, (_, slope) in seen.items():
        gradient = parameters[name].grad
        if slope is not None and gradient is not None:
            gradient.mul_(slope)


@torch.no_grad()
def relative_error(
    weights: Mapping[str, Tensor], rounding: Rounding, kind: str, hardness: float
) -> float:
    """Return the root mean square change of the rounded weights, relative to their size."""
    seen = rounding.see(weights, kind, hardness)
    changes = [(value - weights[name]).double().square().sum() for name, (value, _) in seen.items()]
    sizes = [weights[name].double().square().sum() for name in seen]
    return float((torch.stack(changes).sum() / torch.stack(sizes).sum()).sqrt())
