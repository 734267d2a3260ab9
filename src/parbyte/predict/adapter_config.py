"""Settings of the stages that adapt the network itself: they learn from scored text."""

from collections.abc import Mapping
from dataclasses import dataclass

from parbyte.base.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class TTTConfig:
    """Score-first test-time training: every scored chunk becomes a step of the optimizer."""

    kind: str = setting("ttt", choices=("ttt",), doc="names the stage")
    optimizer: str = setting(
        "adam", choices=("adam", "sgd", "muon"), doc="rule of the step; muon: adam off the matrices"
    )
    lr: float = setting(3e-4, low=0.0, doc="learning rate of the matrices")
    embed_lr: float = setting(2e-4, low=0.0, doc="learning rate of the token and side tables")
    scalar_lr: float = setting(3e-4, low=0.0, doc="learning rate of vectors, gains and biases")
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


NETWORK_STAGES: Mapping[str, type] = {"ttt": TTTConfig}
"""Kind -> settings of stages that need the network: one of them may stand lowest in the stack."""

TORCH_STAGES = frozenset({"ttt"})
"""Kinds that only the torch engine has: they bind a stream to its device and threads."""
