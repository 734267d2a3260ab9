"""Settings of the stages that take rows and give rows: counts, experts, mixing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parbyte.base.settings import require, setting

MAX_ORDER = 22
_METHODS = ("dirichlet", "witten-bell", "ppmd", "kneser-ney")
_MEMORY_DOC = "of the counts; when full, the older half of the text is forgotten"


@dataclass(frozen=True, kw_only=True)
class NgramExpert:
    """Exact counts of what followed each context in the scored text."""

    kind: str = setting("ngram", choices=("ngram",), doc="n-gram counts")
    order: int = setting(MAX_ORDER, low=1, high=MAX_ORDER, unit="tokens", doc="longest context")
    lowest: int = setting(1, low=0, high=MAX_ORDER, unit="tokens", doc="shortest context")
    skip: int = setting(0, low=0, high=8, unit="tokens", doc="left out behind the context")
    method: str = setting("kneser-ney", choices=_METHODS, doc="how a context backs off")
    concentration: float = setting(
        4.0, low=0.01, high=1e6, unit="tokens", doc="dirichlet: weight of the shorter context"
    )
    discount: float = setting(0.75, low=0.01, high=0.99, doc="kneser-ney: taken from each count")

    def __post_init__(self) -> None:
        require(
            self.lowest <= self.order,
            "lowest",
            got=self.lowest,
            want=f"at most order ({self.order})",
        )


@dataclass(frozen=True, kw_only=True)
class MatchExpert:
    """The token after the newest occurrence of the longest context of the first n-gram expert."""

    kind: str = setting("match", choices=("match",), doc="longest match")
    min_length: int = setting(1, low=1, high=MAX_ORDER, unit="tokens", doc="shortest match")


EXPERTS: Mapping[str, type] = {"ngram": NgramExpert, "match": MatchExpert}
"""Kind -> settings of what a mixture may hold."""


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """The posterior of an n-gram model whose shortest context backs off to the row below."""

    kind: str = setting("ngram", choices=("ngram",), doc="n-gram posterior")
    order: int = setting(MAX_ORDER, low=1, high=MAX_ORDER, unit="tokens", doc="longest context")
    lowest: int = setting(1, low=0, high=MAX_ORDER, unit="tokens", doc="shortest context")
    method: str = setting("kneser-ney", choices=_METHODS, doc="how a context backs off")
    concentration: float = setting(
        4.0, low=0.01, high=1e6, unit="tokens", doc="dirichlet: weight of the shorter context"
    )
    discount: float = setting(0.75, low=0.01, high=0.99, doc="kneser-ney: taken from each count")
    memory: int = setting(64 << 20, low=1 << 16, high=1 << 34, unit="bytes", doc=_MEMORY_DOC)


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Experts mixed with the row below, by weights learned from the scored text."""

    kind: str = setting("mix", choices=("mix",), doc="mixture of experts")
    experts: tuple[Any, ...] = setting(
        (NgramExpert(), MatchExpert()), kinds=EXPERTS, doc="what is mixed with the row below"
    )
    memory: int = setting(64 << 20, low=1 << 16, high=1 << 34, unit="bytes", doc=_MEMORY_DOC)
    rate: float = setting(0.02, low=0.0, high=1.0, doc="step of the weights, of Adagrad")
    bonus_rate: float = setting(0.02, low=0.0, high=1.0, doc="step of the bonuses of states")
    start_weight: float = setting(0.6, low=0.0, high=2.0, doc="of every expert before it learns")

    def __post_init__(self) -> None:
        ngrams = sum(expert.kind == "ngram" for expert in self.experts)
        require(ngrams > 0, "experts", got=len(self.experts), want="a list with an 'ngram' in it")


ROW_STAGES: Mapping[str, type] = {"ngram": NgramConfig, "mix": MixConfig}
"""Kind -> settings of stages that can stand on any predictor."""
