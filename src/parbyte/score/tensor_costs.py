"""What the rounding of each tensor costs on a text, one at a time, the others left as floats.

The network alone is measured, in windows that do not overlap: differences count here, and the
stages above the network would only hide them. Shapes: B windows, T positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.units import bits_per_byte
from parbyte.model.gpt import GPT

_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class TensorCosts:
    """Bits per byte of a text under float weights, packed weights, and one packed at a time."""

    float_bpb: float
    packed_bpb: float
    cost_bpb: dict[str, float]
    """By tensor: what packing it alone adds; below 0 where it happens to help."""
    error_percent: dict[str, float]
    """By tensor: root mean square of packed less float weights, in percent of the float ones'."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A text cut into windows: int64[B, T] rows of equal length, and what is left of it."""

    rows: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    num_bytes: int

    @staticmethod
    def of(ids: NDArray[np.uint16], bos_id: int, window: int, num_bytes: int) -> "Reading":
        """Cut ids without BOS into windows."""
        targets_N = torch.from_numpy(ids.astype(np.int64))
        inputs_N = torch.cat([torch.tensor([bos_id]), targets_N[:-1]])
        whole = len(ids) // window * window
        batch = max(1, _TOKENS_AT_ONCE // window)

        def cut(tokens_N: Tensor) -> tuple[Tensor, ...]:
            batches = tokens_N[:whole].reshape(-1, window).split(batch) if whole else ()
            rest = tokens_N[whole:]
            return (*batches, rest.unsqueeze(0)) if len(rest) else tuple(batches)

        return Reading(rows=cut(inputs_N), targets=cut(targets_N), num_bytes=num_bytes)


def tensor_costs(
    packed: GPT, floats: Mapping[str, Tensor], names: Sequence[str], reading: Reading
) -> TensorCosts:
    """Measure the packed model, the float one, and for each name the float one with it packed.

    packed: left as it was.
    """
    model = GPT(packed.config, seed=None).eval().requires_grad_(False)
    rounded = dict(packed.named_parameters())
    model.load_state_dict(dict(floats))
    parameters = dict(model.named_parameters())
    float_bpb = network_bpb(model, reading)
    costs, errors = {}, {}
    for name in names:
        original = parameters[name].clone()
        parameters[name].copy_(rounded[name])
        costs[name] = network_bpb(model, reading) - float_bpb
        parameters[name].copy_(original)
        power = float(original.double().norm()) or 1.0
        errors[name] = 100.0 * float((rounded[name].double() - original.double()).norm()) / power
    return TensorCosts(
        float_bpb=float_bpb,
        packed_bpb=network_bpb(packed, reading),
        cost_bpb=costs,
        error_percent=errors,
    )


@torch.no_grad()
def network_bpb(model: GPT, reading: Reading) -> float:
    nats = sum(
        float(model(inputs_BT, targets_BT)) * targets_BT.numel()
        for inputs_BT, targets_BT in zip(reading.rows, reading.targets, strict=True)
    )
    return bits_per_byte(nats, reading.num_bytes)
