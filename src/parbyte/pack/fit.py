"""Spend the cap: find the finest quantisation whose artifact still fits.

With clip = "std" all steps share one factor. Size falls by about a bit a weight for each doubling
of it (an octave), so a few Newton steps between brackets find the factor that fills the cap. The
other rules lower the bits of one role after another.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from parbyte.base.errors import CapError
from parbyte.model.roles import Role
from parbyte.pack.accounting import cap_error
from parbyte.pack.tensors import Layout
from parbyte.quant.config import FLOAT_BITS, QuantConfig
from parbyte.quant.grid import max_code
from parbyte.quant.quantize import bits_of, in_groups, with_coarser_steps
from parbyte.quant.rounding import row_reach
from parbyte.quant.scales import clip_std_of

UNUSED = 0.0005  # share of the cap that may stay empty
_MOST_PROBES = 14
_DEAREST_RATE = 1.0  # in squared steps a bit: most codes go down by one there
_COARSEST_STEP = 2.0  # in standard deviations: nearly all codes are 0 there
# Bits are taken where they hurt least first; the embedding is also the output head.
_LOWERING_ORDER = ("mlp", "attn", "proj", "table", "embed")
_NOTHING_COARSER = (
    "no coarser grid is left: choose a smaller 'text.vocab_size', 'model.model_dim' or "
    "'model.num_layers', or a larger cap"
)


@dataclass(frozen=True)
class Draft:
    """One finished candidate: the file, its bytes by part, and the layouts that were best."""

    data: bytes
    parts: dict[str, int]
    layouts: dict[str, Layout]


Assemble = Callable[[QuantConfig, Mapping[str, Layout]], Draft]


def fit_to_cap(
    assemble: Assemble,
    weights: Mapping[str, Tensor],
    roles: Mapping[str, Role],
    quant: QuantConfig,
    cap_bytes: int,
) -> tuple[Draft, QuantConfig]:
    """Return the finest draft of at most `cap_bytes`, and the settings that make it.

    clip = "std": finer or coarser than the recipe asks, until the cap is full or the steps cannot
    be finer without clipping more. Other rules: never finer than the recipe asks.
    Raises CapError if even the coarsest does not fit.
    """
    if quant.clip == "std":
        stepped = {
            name: weight
            for name, weight in weights.items()
            if roles[name] is not Role.SCALAR
            and bits_of(roles[name], tuple(weight.shape), quant) != FLOAT_BITS
        }
        if stepped:
            bracket = _octaves(stepped, roles, quant)
            num_weights = sum(weight.numel() for weight in stepped.values())
            return _fit_steps(assemble, quant, cap_bytes, bracket, num_weights)
    return _fit_bits(assemble, quant, cap_bytes)


@dataclass
class _Bracket:
    """Octaves of step between which the answer lies; an end is `tried` once a draft was made."""

    low: float
    high: float
    tried: set[float] = field(default_factory=set)

    def next(self, proposal: float) -> float | None:
        """Return where to probe: the proposal, an untried end beyond it, or the middle."""
        if self.high - self.low < 1e-4 and self.tried >= {self.low, self.high}:
            return None
        if self.low < proposal < self.high:
            return proposal
        end = self.low if proposal <= self.low else self.high
        return (self.low + self.high) / 2 if end in self.tried else end


def _octaves(
    weights: Mapping[str, Tensor], roles: Mapping[str, Role], quant: QuantConfig
) -> _Bracket:
    """Return how far steps may move: no new clipping below, all codes near 0 above."""
    low, high = -math.inf, 0.0
    for name, weight in weights.items():
        clip_std = clip_std_of(roles[name], quant)
        limit = max_code(bits_of(roles[name], tuple(weight.shape), quant))
        reach = row_reach(in_groups(weight, quant))
        low = max(low, math.log2(max(reach, 1e-3) / clip_std))
        high = max(high, math.log2(_COARSEST_STEP * limit / clip_std))
    return _Bracket(min(low, 0.0), high)


def _fit_steps(
    assemble: Assemble,
    quant: QuantConfig,
    cap_bytes: int,
    bracket: _Bracket,
    num_weights: int,
) -> tuple[Draft, QuantConfig]:
    octave: float | None = 0.0
    layouts: Mapping[str, Layout] = {}
    best: tuple[Draft, QuantConfig] | None = None
    smallest: Draft | None = None
    for _ in range(_MOST_PROBES):
        config = with_coarser_steps(quant, 2.0**octave)
        draft = assemble(config, layouts)
        layouts = draft.layouts
        excess = len(draft.data) - cap_bytes
        bracket.tried.add(octave)
        if smallest is None or len(draft.data) < len(smallest.data):
            smallest = draft
        if excess > 0:
            bracket.low = octave
        else:
            bracket.high = octave
            if best is None or len(draft.data) > len(best[0].data):
                best = (draft, config)
        if -UNUSED * cap_bytes <= excess <= 0:
            break
        aim = cap_bytes * (1 - 0.4 * UNUSED)
        octave = bracket.next(octave + 8 * (len(draft.data) - aim) / num_weights)
        if octave is None:
            break
    if best is None:
        assert smallest is not None
        raise too_small(smallest.parts, cap_bytes)
    return best


def fit_rate(
    assemble: Assemble, quant: QuantConfig, layouts: Mapping[str, Layout], cap_bytes: int
) -> Draft:
    """Return the draft nearest below the cap when grids stay and only `rate_weight` rises.

    Raises CapError, naming the smallest size, if the dearest rate does not fit either.
    """
    draft = assemble(quant, layouts)
    if len(draft.data) <= cap_bytes:
        return draft
    low, high = quant.rate_weight, _DEAREST_RATE
    best = assemble(dataclasses.replace(quant, rate_weight=high), layouts)
    if len(best.data) > cap_bytes:
        raise too_small(best.parts, cap_bytes)
    for _ in range(_MOST_PROBES):
        if len(best.data) >= (1 - UNUSED) * cap_bytes:
            break
        middle = (low + high) / 2
        draft = assemble(dataclasses.replace(quant, rate_weight=middle), layouts)
        if len(draft.data) > cap_bytes:
            low = middle
        else:
            best, high = draft, middle
    return best


def too_small(smallest_parts: Mapping[str, int], cap_bytes: int) -> CapError:
    """Return the error for a cap below the smallest file that the recipe can make."""
    size = sum(smallest_parts.values())
    remedy = f"the smallest possible is {size:,} bytes; {_NOTHING_COARSER}"
    return cap_error(dict(smallest_parts), cap_bytes, remedy)


def _fit_bits(assemble: Assemble, quant: QuantConfig, cap_bytes: int) -> tuple[Draft, QuantConfig]:
    """Find by bisection the first of ever coarser plans that fits."""
    plans = _coarser_plans(quant)
    draft = assemble(plans[0], {})
    if len(draft.data) <= cap_bytes:
        return draft, quant
    best = assemble(plans[-1], draft.layouts)
    if len(best.data) > cap_bytes:
        raise too_small(best.parts, cap_bytes)
    low, high = 1, len(plans) - 1
    while low < high:
        middle = (low + high) // 2
        draft = assemble(plans[middle], best.layouts)
        if len(draft.data) > cap_bytes:
            low = middle + 1
        else:
            best, high = draft, middle
    return best, plans[high]


def _coarser_plans(quant: QuantConfig) -> list[QuantConfig]:
    """Return the recipe's plan, then one with a bit less for one role, and so on down to 2 bits."""
    plans = [quant]
    bits = {role: int(getattr(quant, f"bits_{role}")) for role in _LOWERING_ORDER}
    while max(bits.values()) > 2:
        role = max(_LOWERING_ORDER, key=lambda name: bits[name])
        bits[role] = 8 if bits[role] == FLOAT_BITS else bits[role] - 1
        plans.append(dataclasses.replace(quant, **{f"bits_{r}": b for r, b in bits.items()}))
    return plans
