"""Trim a file to its cap: the codes of +-1 that matter least become 0, as few as will do.

Source: openai/parameter-golf PRs 609 and 1019, where the cost is the squared step; here it is
weighted by what the column is multiplied with, where that is known. Shapes: C columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from parbyte.pack.fit import UNUSED, Draft, too_small
from parbyte.quant.grid import Codes, steps_of
from parbyte.quant.quantize import Quantized

_MOST_PROBES = 12


def prune_to_cap(
    write: Callable[[Mapping[str, Quantized]], Draft],
    quantized: Mapping[str, Quantized],
    inputs: Mapping[str, Tensor],
    draft: Draft,
    cap_bytes: int,
) -> Draft:
    """Return the draft nearest below the cap; `draft` is the one of `quantized`, above it.

    inputs: float64[C], mean square of what each column of a tensor is multiplied with, by name.
    Raises CapError, naming the smallest size, if it does not fit without a single +-1 either.
    """
    candidates = _Candidates(quantized, inputs)
    low, low_size = 0, len(draft.data)
    high, best = candidates.count, write(candidates.without(candidates.count))
    if len(best.data) > cap_bytes:
        raise too_small(best.parts, cap_bytes)
    for _ in range(_MOST_PROBES):
        if len(best.data) >= (1 - UNUSED) * cap_bytes or high - low < 2:
            break
        aim = (1 - 0.4 * UNUSED) * cap_bytes
        share = (low_size - aim) / max(1, low_size - len(best.data))
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        draft = write(candidates.without(middle))
        if len(draft.data) > cap_bytes:
            low, low_size = middle, len(draft.data)
        else:
            high, best = middle, draft
    return best


class _Candidates:
    """All codes of +-1 on uniform grids, those that cost least first."""

    def __init__(self, quantized: Mapping[str, Quantized], inputs: Mapping[str, Tensor]) -> None:
        self._quantized = quantized
        self._places: dict[str, Tensor] = {}
        costs = [torch.zeros(0)]
        for name, item in quantized.items():
            if isinstance(item, Codes) and item.grid == "uniform" and item.bits > 1:
                places = torch.nonzero(item.codes.flatten().abs() == 1).flatten()
                cost = steps_of(item).double().square() * inputs.get(name, torch.ones(()))
                costs.append(cost.expand(item.shape).reshape(-1)[places].float())
                self._places[name] = places
        self._order = torch.cat(costs).argsort(stable=True)
        self.count = len(self._order)

    def without(self, count: int) -> dict[str, Quantized]:
        """Return the weights with the `count` cheapest of these codes set to 0."""
        chosen, first = self._order[:count], 0
        pruned = dict(self._quantized)
        for name, places in self._places.items():
            inside = chosen[(chosen >= first) & (chosen < first + len(places))] - first
            first += len(places)
            item = pruned[name]
            assert isinstance(item, Codes), "only codes have places"
            codes = item.codes.clone()
            codes.view(-1)[places[inside]] = 0
            pruned[name] = replace(item, codes=codes)
        return pruned
