"""Settings of the stages that adapt the network or its rows: they learn from scored text."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from parbyte.base.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class TTTConfig:
    """Score-first test-time training: every scored chunk becomes a step of the optimizer."""

    kind: str = setting("ttt", choices=("ttt",), doc="names the stage")
    optimizer: str = setting(
        "adam", choices=("adam", "sgd", "muon"), doc="rule of the step; muon: adam off the matrices"
    )
    lr: float = setting(5e-4, low=0.0, doc="learning rate of the matrices")
    embed_lr: float = setting(2e-4, low=0.0, doc="learning rate of the token and side tables")
    scalar_lr: float = setting(5e-4, low=0.0, doc="learning rate of vectors, gains and biases")
    beta1: float = setting(0.9, low=0.0, high=0.9999, doc="adam: memory of the gradient")
    beta2: float = setting(0.999, low=0.0, high=0.99999, doc="adam: memory of its square")
    eps: float = setting(1e-8, low=1e-16, doc="adam: added to the root of the square")
    momentum: float = setting(0.9, low=0.0, high=0.9999, doc="sgd and muon: memory of the gradient")
    weight_decay: float = setting(0.0, low=0.0, doc="decoupled decay of tables and matrices")
    clip: float = setting(0.0, low=0.0, doc="largest norm of the whole gradient; 0 = any")
    schedule: str = setting(
        "constant", choices=("constant", "cosine"), doc="learning rate over `horizon`"
    )
    horizon: int = setting(
        0, low=0, unit="tokens", doc="cosine: tokens of a lane after which the rate is 0"
    )
    epochs: int = setting(1, low=1, high=1000, doc="steps on each chunk")
    train: str = setting(
        "all",
        choices=("all", "last", "no_embed", "scalars"),
        doc="what learns: all, the last blocks, all but the tables, or vectors only",
    )
    last_blocks: int = setting(1, low=1, doc="blocks that learn under train = 'last'")

    def __post_init__(self) -> None:
        require(
            self.schedule == "constant" or self.horizon > 0,
            "horizon",
            got=self.horizon,
            want="above 0 with schedule = 'cosine'",
        )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank test-time training: each lane's own adapter, begun anew with each document."""

    kind: str = setting("lora", choices=("lora",), doc="names the stage")
    rank: int = setting(8, low=1, high=1024, doc="rank of each adapter")
    alpha: float = setting(8.0, low=0.0, doc="the adapter acts alpha / rank times")
    parts: tuple[str, ...] = setting(
        ("qkv", "out", "up", "down"),
        choices=("qkv", "out", "up", "down"),
        doc="matrices of every block that get one",
    )
    lr: float = setting(1e-3, low=0.0, doc="adam's rate")
    beta1: float = setting(0.9, low=0.0, high=0.9999, doc="adam: memory of the gradient")
    beta2: float = setting(0.999, low=0.0, high=0.99999, doc="adam: memory of its square")
    eps: float = setting(1e-8, low=1e-16, doc="adam: added to the root of the square")
    weight_decay: float = setting(0.0, low=0.0, doc="decoupled decay of the adapter, per rate")
    epochs: int = setting(1, low=1, high=1000, doc="steps on each chunk")
    phases: tuple[int, ...] = setting(
        (), low=1, unit="tokens", doc="scored tokens after which the network itself is trained"
    )
    phase_lr: float = setting(1e-3, low=0.0, doc="phases: sgd's rate, cosine over the phase")
    phase_momentum: float = setting(0.9, low=0.0, high=0.9999, doc="phases: sgd's momentum")
    phase_clip: float = setting(1.0, low=0.0, doc="phases: largest norm of a gradient; 0 = any")

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.phases))
        require(rising, "phases", got=list(self.phases), want="rising numbers")
        require(len(self.parts) > 0, "parts", got=[], want="at least one matrix")


@dataclass(frozen=True, kw_only=True)
class SlotConfig:
    """Context-only SLOT: before each chunk a shift is fitted to the text behind it."""

    kind: str = setting("slot", choices=("slot",), doc="names the stage")
    fit: str = setting(
        "bias",
        choices=("hidden", "bias", "both"),
        doc="what is fitted: a shift of the last hidden state, of the logits, or both",
    )
    optimizer: str = setting("adam", choices=("adam", "lbfgs"), doc="how it is fitted")
    steps: int = setting(8, low=1, high=1000, doc="steps of adam, iterations of lbfgs")
    lr: float = setting(5e-3, low=0.0, doc="adam's rate")
    beta1: float = setting(0.3, low=0.0, high=0.9999, doc="adam: memory of the gradient")
    beta2: float = setting(0.9, low=0.0, high=0.99999, doc="adam: memory of its square")
    eps: float = setting(1e-5, low=1e-16, doc="adam: added to the root of the square")
    history: int = setting(20, low=1, high=1000, doc="lbfgs: pairs that it remembers")
    focal: int = setting(
        0, low=0, unit="tokens", doc="only the last tokens of the context are fitted; 0: all"
    )
    ridge: float = setting(0.0, low=0.0, doc="ridge / 2 x the shift's squared norm joins the loss")
    warm: bool = setting(False, doc="start from the fit before the last chunk; false: from zero")
    clamp: float = setting(5.0, low=0.0, doc="largest absolute value of a fitted number")


@dataclass(frozen=True, kw_only=True)
class EtlbConfig:
    """A logit bias that learns from every scored chunk and is carried on."""

    kind: str = setting("etlb", choices=("etlb",), doc="names the stage")
    lr: float = setting(0.05, low=0.0, doc="rate of its gradient steps")
    steps: int = setting(5, low=1, high=1000, doc="gradient steps after each chunk")
    clamp: float = setting(3.0, low=0.0, unit="nats", doc="largest absolute value of the bias")


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """Rows sharpened or flattened by constants of the artifact, by how sure they are."""

    kind: str = setting("temperature", choices=("temperature",), doc="names the stage")
    edges: tuple[float, ...] = setting(
        (), low=0.0, unit="nats", doc="rising entropies that divide the rows into bins"
    )
    temperatures: tuple[float, ...] = setting(
        (1.0,), low=0.05, high=20.0, doc="of each bin's mixture, bin after bin"
    )
    weights: tuple[float, ...] = setting(
        (), low=0.0, high=1.0, doc="relative ones of each bin's mixture, as listed; []: equal"
    )
    fit_tokens: int = setting(
        0, low=0, high=1 << 20, doc="tokens of training text that packing fits both to; 0: none"
    )

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.edges))
        require(rising, "edges", got=list(self.edges), want="rising numbers")
        bins, count = len(self.edges) + 1, len(self.temperatures)
        require(
            count >= bins and count % bins == 0,
            "temperatures",
            got=list(self.temperatures),
            want=f"equally many numbers for each of the {bins} bins",
        )
        require(
            len(self.weights) in (0, count),
            "weights",
            got=list(self.weights),
            want=f"empty, or {count} numbers as temperatures",
        )
        size = count // bins
        shares = [sum(self.weights[i : i + size]) for i in range(0, len(self.weights), size)]
        require(
            all(share > 0.0 for share in shares),
            "weights",
            got=list(self.weights),
            want="above 0 somewhere in each bin",
        )


NETWORK_STAGES: Mapping[str, type] = {"ttt": TTTConfig, "lora": LoraConfig, "slot": SlotConfig}
"""Kind -> settings of stages that need the network: one of them may stand lowest in the stack."""

ADAPTED_ROWS: Mapping[str, type] = {"etlb": EtlbConfig, "temperature": TemperatureConfig}
"""Kind -> settings of stages that adapt the rows of any predictor."""

TORCH_STAGES = frozenset({"lora", "slot"})
"""Kinds that only the torch engine has: they bind a stream to its device and threads."""
