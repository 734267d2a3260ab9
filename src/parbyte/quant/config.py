"""The recipe's [quant] table: bits by role, and how the step of each row is chosen."""

from dataclasses import dataclass
from typing import Any

from parbyte.base.settings import require, setting, to_table

FLOAT_BITS = 16
# Keys that decide how weights are rounded on a grid, not the grid itself.
_ON_THE_GRID = ("method", "damping", "act_order", "calibration", "calibration_tokens")
_ON_THE_GRID += ("rate_weight", "heal_steps", "heal_seconds", "heal_from", "heal_lr")


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How weights become codes; vectors, gates and tiny tensors are float16 in any case.

    With clip = "std" the step is k std / max code, and size depends on the step alone: more bits
    with proportionally more k only move the clipping point outwards. So 8 bits are the default
    there, and 57 / 127 = 0.45 std the step. The other rules make a code of each bit count.
    """

    bits_embed: int = setting(8, low=2, high=16, doc="token embedding: 2..8, or 16 = float16")
    bits_table: int = setting(8, low=2, high=16, doc="bigram and value tables: 2..8, or 16")
    bits_attn: int = setting(8, low=2, high=16, doc="attention matrices: 2..8, or 16")
    bits_mlp: int = setting(8, low=2, high=16, doc="MLP matrices: 2..8, or 16")
    bits_proj: int = setting(8, low=2, high=16, doc="other matrices: 2..8, or 16")
    clip: str = setting(
        "std",
        choices=("max", "search", "std"),
        doc="a row's largest code stands for: its maximum | the best shrunk maximum | k std",
    )
    clip_std_embed: float = setting(
        47.0, low=0.01, high=1000.0, doc="k for embedding and tables: step = k std / max code"
    )
    clip_std_matrix: float = setting(
        57.0, low=0.01, high=1000.0, doc="k for all other matrices: step = k std / max code"
    )
    frequency_power: float = setting(
        0.35, low=0.0, high=0.5, doc='x of clip = "std": a token\'s row has steps ~ its count^-x'
    )
    scale_digits: int = setting(
        3, low=0, high=10, doc="binary digits kept of a row's float16 scale; codes make up for it"
    )

    allocation: str = setting(
        "std",
        choices=("std", "sensitivity"),
        doc='clip = "std": the same k for all tensors of a kind | k by what errors cost the loss',
    )
    method: str = setting(
        "nearest",
        choices=("nearest", "gptq"),
        doc="rounding: each weight for itself | so that a layer's outputs change least (GPTQ)",
    )
    damping: float = setting(
        0.01, low=1e-6, high=100.0, doc="gptq: added to the Hessian's diagonal, per its mean"
    )
    act_order: bool = setting(True, doc="gptq: round the columns of the largest inputs first")
    calibration: str = setting(
        "train",
        choices=("train", "self", "random"),
        doc="gptq and sensitivity look at: the training split | the model's own text | noise",
    )
    calibration_tokens: int = setting(65_536, low=1, doc="tokens to calibrate on")
    rate_weight: float = setting(
        0.0,
        low=0.0,
        high=2.0,
        doc="what a bit costs in squared steps when rounding; 0: nothing, 0.1: near the optimum",
    )
    heal_steps: int = setting(
        0, low=0, doc="steps of training through the grid before packing; 0: use heal_seconds"
    )
    heal_seconds: float = setting(
        0.0,
        low=0.0,
        unit="seconds",
        doc="the same by the clock, part of the track's training seconds; 0: no healing",
    )
    heal_from: str = setting(
        "model",
        choices=("model", "text"),
        doc="what healing learns: what the float model says of the training text | the text",
    )
    heal_lr: float = setting(3e-4, low=0.0, high=1.0, doc="Adam's rate at the start of healing")

    def __post_init__(self) -> None:
        for role in ("embed", "table", "attn", "mlp", "proj"):
            bits = getattr(self, f"bits_{role}")
            allowed = 2 <= bits <= 8 or bits == FLOAT_BITS
            require(allowed, f"quant.bits_{role}", got=bits, want="2..8, or 16 for float16")
        require(
            self.allocation == "std" or self.clip == "std",
            "quant.allocation",
            got=self.allocation,
            want='"std" unless quant.clip = "std"',
        )
        require(
            self.heal_steps == 0 or self.heal_seconds == 0,
            "quant.heal_seconds",
            got=self.heal_seconds,
            want="0 when heal_steps is set",
        )

    @property
    def grid(self) -> dict[str, Any]:
        """The settings that decide the grid of given weights, as plain values."""
        return {key: value for key, value in to_table(self).items() if key not in _ON_THE_GRID}

    @property
    def calibrates(self) -> bool:
        """Whether rounding depends on text that the model is run on."""
        return self.method == "gptq" or self.allocation == "sensitivity"

    @property
    def heals(self) -> bool:
        """Whether the weights are trained on through the grid before they are packed."""
        return self.heal_steps > 0 or self.heal_seconds > 0
