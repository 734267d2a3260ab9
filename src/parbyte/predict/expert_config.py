"""Settings of the stages that take rows and give rows: counts, experts, mixing, calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parbyte.base.settings import require, setting

MAX_ORDER = 22
SETS = ("order", "entropy", "match", "position")
_METHODS = ("dirichlet", "witten-bell", "ppmd", "kneser-ney")


def _order(default: int) -> Any:
    return setting(default, low=1, high=MAX_ORDER, unit="tokens", doc="longest context")


def _lowest(default: int) -> Any:
    return setting(default, low=0, high=MAX_ORDER, unit="tokens", doc="shortest context")


def _method() -> Any:
    return setting("kneser-ney", choices=_METHODS, doc="how a context backs off to the shorter one")


def _concentration() -> Any:
    doc = "dirichlet: weight of the shorter context"
    return setting(4.0, low=0.1, high=1e6, unit="tokens", doc=doc)


def _discount() -> Any:
    return setting(0.75, low=0.01, high=0.99, doc="kneser-ney: taken from each count")


def _memory() -> Any:
    doc = "of the counts; when full, the older half of the text is forgotten"
    return setting(64 << 20, low=1 << 16, high=1 << 32, unit="bytes", doc=doc)


def _require_orders(lowest: int, order: int) -> None:
    require(lowest <= order, "lowest", got=lowest, want=f"at most order ({order})")


@dataclass(frozen=True, kw_only=True)
class NgramExpert:
    """Exact counts of what followed each context in the scored text."""

    kind: str = setting("ngram", choices=("ngram",), doc="n-gram counts")
    order: int = _order(MAX_ORDER)
    lowest: int = _lowest(1)
    skip: int = setting(0, low=0, high=8, unit="tokens", doc="left out behind the context")
    method: str = _method()
    concentration: float = _concentration()
    discount: float = _discount()

    def __post_init__(self) -> None:
        _require_orders(self.lowest, self.order)


@dataclass(frozen=True, kw_only=True)
class MatchExpert:
    """The newest token after the longest context that the first n-gram expert knows."""

    kind: str = setting("match", choices=("match",), doc="longest match")
    min_length: int = setting(1, low=1, high=MAX_ORDER, unit="tokens", doc="shortest match")


@dataclass(frozen=True, kw_only=True)
class RecentExpert:
    """Counts of the scored text's tokens that fade with time, whatever stood before them."""

    kind: str = setting("recent", choices=("recent",), doc="fading counts of tokens")
    span: float = setting(
        500.0, low=2.0, high=1e9, unit="tokens", doc="of each lane, until a count is 1/e"
    )
    concentration: float = setting(
        20.0, low=0.1, high=1e9, unit="tokens", doc="weight of the row below"
    )


EXPERTS: Mapping[str, type] = {"ngram": NgramExpert, "match": MatchExpert, "recent": RecentExpert}
"""Kind -> settings of what a mixture may hold."""


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Experts mixed with the row below, by weights learned from the scored text."""

    kind: str = setting("mix", choices=("mix",), doc="mixture of experts")
    mode: str = setting(
        "geometric",
        choices=("geometric", "linear", "gated"),
        doc="product of powers; weighted sum; sum under a gate on the entropy of the row below",
    )
    experts: tuple[Any, ...] = setting(
        (NgramExpert(), MatchExpert(), RecentExpert()),
        kinds=EXPERTS,
        doc="what is mixed with the row below",
    )
    sets: tuple[str, ...] = setting(
        SETS[:3],
        choices=SETS,
        doc="what else picks weights: context, row below, match, tokens of the document so far",
    )
    memory: int = _memory()
    rate: float = setting(0.02, low=0.0, high=1.0, doc="step of the weights")
    bonus_rate: float = setting(
        0.04, low=0.0, high=1.0, doc="geometric: step of what each state of the counts adds"
    )
    start_weight: float = setting(
        0.4, low=0.0, high=2.0, doc="of each expert (linear: of all) before the mixture learns"
    )

    def __post_init__(self) -> None:
        kinds = [expert.kind for expert in self.experts]
        wanted = "a list with at least one 'ngram'"
        require("ngram" in kinds, "experts", got=kinds, want=wanted)
        for kind in ("match", "recent"):
            require(kinds.count(kind) <= 1, "experts", got=kinds, want=f"at most one '{kind}'")
        are_distinct = len(set(self.sets)) == len(self.sets)
        require(are_distinct, "sets", got=list(self.sets), want="each at most once")
        is_sum = self.mode != "geometric"
        require(
            not is_sum or self.start_weight <= 1.0,
            "start_weight",
            got=self.start_weight,
            want=f"at most 1 in mode '{self.mode}'",
        )


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """The posterior of an n-gram model whose shortest context backs off to the row below."""

    kind: str = setting("ngram", choices=("ngram",), doc="n-gram posterior")
    order: int = _order(MAX_ORDER)
    lowest: int = _lowest(1)
    method: str = _method()
    concentration: float = _concentration()
    discount: float = _discount()
    learn: str = setting(
        "token",
        choices=("token", "chunk"),
        doc="when counts are taken; chunk: all lanes and positions at once, in torch",
    )
    memory: int = _memory()

    def __post_init__(self) -> None:
        _require_orders(self.lowest, self.order)


@dataclass(frozen=True, kw_only=True)
class TiltConfig:
    """One hinted token made likelier by a factor: the sure follower of the longest context."""

    kind: str = setting("tilt", choices=("tilt",), doc="n-gram tilt")
    order: int = _order(16)
    lowest: int = _lowest(2)
    beta: float = setting(2.0, low=0.0, high=20.0, unit="nats", doc="of a hint that never failed")
    confidence: float = setting(0.6, low=0.0, high=1.0, doc="least share of the hinted follower")
    min_count: int = setting(2, low=1, high=1 << 30, doc="least occurrences of the context")
    memory: int = _memory()

    def __post_init__(self) -> None:
        _require_orders(self.lowest, self.order)


@dataclass(frozen=True, kw_only=True)
class SseConfig:
    """Calibrates the likeliest tokens by how often they came when they were that likely."""

    kind: str = setting("sse", choices=("sse",), doc="secondary estimation")
    depth: int = setting(3, low=1, high=16, doc="likeliest tokens that are calibrated")
    rate: float = setting(0.02, low=0.0, high=0.5, doc="step of a cell of the map")
    share: float = setting(0.5, low=0.0, high=1.0, doc="of the map; the rest is left as it was")


@dataclass(frozen=True, kw_only=True)
class BytesConfig:
    """A model of bytes learned from the scored text, multiplied with the row below."""

    kind: str = setting("bytes", choices=("bytes",), doc="byte model over the vocabulary's bytes")
    order: int = setting(6, low=0, high=16, unit="bytes", doc="longest context")
    discount: float = setting(0.5, low=0.01, high=0.99, doc="taken from each count")
    threshold: float = setting(
        1e-4, low=0.0, high=0.1, doc="tokens whose common prefix is less likely share it evenly"
    )
    memory: int = _memory()
    rate: float = setting(0.02, low=0.0, high=1.0, doc="step of the weights")
    start_weight: float = setting(
        0.1, low=0.0, high=2.0, doc="of the byte model before the mixture learns"
    )


ROW_STAGES: Mapping[str, type] = {
    "ngram": NgramConfig,
    "tilt": TiltConfig,
    "mix": MixConfig,
    "sse": SseConfig,
    "bytes": BytesConfig,
}
"""Kind -> settings of stages that can stand on any predictor."""

COUNTING = ("ngram", "tilt", "mix")
"""Stages that count tokens, and may have read some before the first."""
