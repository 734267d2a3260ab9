"""The six rungs: what PR 1430's script does on each, which condition it breaks, what repairs it.

    float | packed | sliding | + TTT | + SLOT | + n-gram

A rung is claimed on top of all rungs below it, as the script stacks them. It is audited alone, over
plain honest windows: what is convicted is then the rung itself, not the one it stands on.
Shapes: N tokens of the stream.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from parbyte.claims.claimed import Claimed
from parbyte.claims.hashed import hashed_mixer
from parbyte.claims.slot import per_sample_slot
from parbyte.claims.ttt import rescored, train_in_place
from parbyte.claims.windows import sliding
from parbyte.model.gpt import GPT
from parbyte.seed.scale import Scale, stride_of

Table = dict[str, Any]
Claim = Callable[["Ladder"], Claimed]
Alone = Callable[[GPT, Tensor, Scale], Claimed]
Twin = Callable[[int, Table], Table]

CONDITIONS = {
    "C1": "the price of a token depends on what comes before it alone",
    "C2": "the prices of all tokens are one distribution, fixed before the token is seen",
    "C3": "a token is learned from after it is scored",
    "C4": "every token is scored once, in one pass",
}


class Ladder:
    """One text under the networks of one run; what several rungs stand on is computed once."""

    def __init__(self, float_model: GPT, model: GPT, stream_N: Tensor, scale: Scale) -> None:
        self.float_model, self.model = float_model, model
        self.stream_N, self.scale = stream_N, scale

    @cached_property
    def adapted(self) -> GPT:
        """The packed network after it was trained in place on the whole text."""
        adapted = copy.deepcopy(self.model)
        train_in_place(adapted, self.stream_N, self.scale.script, self.scale.in_place)
        return adapted

    @cached_property
    def fitted(self) -> Claimed:
        """The text rescored by that network, a vector and a bias fitted to each window."""
        return per_sample_slot(self.adapted, self.stream_N, self.scale.script, self.scale.slot)

    @cached_property
    def mixed(self) -> Claimed:
        """The same mixed with the hashed tables."""
        return hashed_mixer(
            self.fitted,
            self.stream_N,
            self.scale.script,
            self.model.config.vocab_size,
            self.scale.mixer,
        )


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the script and its repair."""

    name: str
    does: str
    claim: Claim
    alone: Alone
    is_packed: bool = True
    """False: it is about the weights before they were rounded."""
    is_plain: bool = False
    """True: its windows stand side by side."""
    breaks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Condition that this rung breaks -> the checks that can show it."""
    repair: str
    """The twin in words; its stages are those of docs/eval-time.md."""
    twin: Twin
    """Window, stage `ttt` -> the twin's predictor settings, but for engine and dtype."""


def walk(window: int, stride: int, *stages: Table) -> Table:
    """Return the predictor settings of stages over windows."""
    return {"window": window, "stride": stride, "carry": False, "stack": list(stages)}


def _stands(window: int, ttt: Table) -> Table:
    return walk(window, window)


def _slides(*stages: Table) -> Twin:
    return lambda window, ttt: walk(window, stride_of(window), *stages)


def _learns(*stages: Table) -> Twin:
    return lambda window, ttt: walk(window, stride_of(window), ttt, *stages)


def _plain(model: GPT, stream_N: Tensor, scale: Scale) -> Claimed:
    return sliding(model, stream_N, scale.plain)


def _mixed_alone(model: GPT, stream_N: Tensor, scale: Scale) -> Claimed:
    base = sliding(model, stream_N, scale.sliding)
    return hashed_mixer(base, stream_N, scale.sliding, model.config.vocab_size, scale.mixer)


RUNGS = (
    Rung(
        name="float",
        is_packed=False,
        is_plain=True,
        does="float32 weights, windows side by side",
        claim=lambda ladder: _plain(ladder.float_model, ladder.stream_N, ladder.scale),
        alone=_plain,
        repair="float16 weights, which no cap allows, windows side by side",
        twin=_stands,
    ),
    Rung(
        name="packed",
        is_plain=True,
        does="the artifact's weights, windows side by side",
        claim=lambda ladder: _plain(ladder.model, ladder.stream_N, ladder.scale),
        alone=_plain,
        repair="the same, coded",
        twin=_stands,
    ),
    Rung(
        name="sliding",
        does="overlapping windows; the short ones at the end score the last tokens again",
        claim=lambda ladder: sliding(ladder.model, ladder.stream_N, ladder.scale.script),
        alone=lambda model, stream_N, scale: sliding(model, stream_N, scale.script),
        breaks={"C4": ("T8",)},
        repair="sliding windows, each token once",
        twin=_slides(),
    ),
    Rung(
        name="+ TTT",
        does="the network trains on the whole text, then scores it",
        claim=lambda ladder: sliding(ladder.adapted, ladder.stream_N, ladder.scale.script),
        alone=lambda model, stream_N, scale: rescored(
            model, stream_N, scale.sliding, scale.in_place
        ),
        breaks={"C3": ("T1", "T4"), "C4": ("T3",)},
        repair="score-first training: `ttt`",
        twin=_learns(),
    ),
    Rung(
        name="+ SLOT",
        does="a vector and a bias for each window, fitted to the tokens it scores",
        claim=lambda ladder: ladder.fitted,
        alone=lambda model, stream_N, scale: per_sample_slot(
            model, stream_N, scale.sliding, scale.slot
        ),
        breaks={"C1": ("T1", "T4"), "C3": ("T1", "T4")},
        repair="fitted to each window's scored past: `slot`",
        twin=_slides({"kind": "slot", "fit": "both"}),
    ),
    Rung(
        name="+ n-gram",
        does="two hashed tables, asked for the answer alone",
        claim=lambda ladder: ladder.mixed,
        alone=_mixed_alone,
        breaks={"C2": ("T2", "T6")},
        repair="score-first training, exact counts, one sum over the vocabulary: `ttt`, `mix`",
        twin=_learns({"kind": "mix"}),
    ),
)
