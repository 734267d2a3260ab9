"""The recipe's [quant] table: bits by role, and how the step of each row is chosen."""

from dataclasses import dataclass
from typing import Any

from parbyte.base.settings import require, setting, to_table

FLOAT_BITS = 16
ROLES = ("embed", "table", "attn", "mlp", "proj")
# Keys that decide how weights are rounded on a grid, not the grid itself.
_ON_THE_GRID = ("method", "damping", "act_order", "calibration", "calibration_tokens")
_ON_THE_GRID += ("rate_weight", "heal_steps", "heal_seconds", "heal_from", "heal_lr")
_ON_THE_GRID += ("lqer_rank", "lqer_tensors", "lqer_bits_left", "lqer_bits_right", "sparse_share")
_ON_THE_GRID += ("refit_scales", "eggroll_trials")


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How weights become codes; vectors, gates and tiny tensors are float16 in any case.

    With clip = "std" the step is k std / max code, and size depends on the step alone: more bits
    with proportionally more k only move the clipping point outwards. So 8 bits are the default
    there, and 57 / 127 = 0.45 std the step. The other rules make a code of each bit count.
    """

    bits_embed: int = setting(8, low=1, high=16, doc="token embedding: 1..8, or 16 = float16")
    bits_table: int = setting(8, low=1, high=16, doc="bigram and value tables: 1..8, or 16")
    bits_attn: int = setting(8, low=1, high=16, doc="attention matrices: 1..8, or 16")
    bits_mlp: int = setting(8, low=1, high=16, doc="MLP matrices: 1..8, or 16")
    bits_proj: int = setting(8, low=1, high=16, doc="other matrices: 1..8, or 16")
    clip: str = setting(
        "std",
        choices=("max", "search", "std", "mean"),
        doc="a row's largest code stands for: its maximum | the best shrunk maximum | k std | "
        "its mean size (1 and 2 bits: binary and ternary)",
    )
    clip_std_embed: float = setting(
        47.0, low=0.01, high=1000.0, doc="k for embedding and tables: step = k std / max code"
    )
    clip_std_matrix: float = setting(
        57.0, low=0.01, high=1000.0, doc="k for all other matrices: step = k std / max code"
    )
    clip_std_table: float = setting(0.0, low=0.0, high=1000.0, doc="k for tables; 0: as embedding")
    clip_std_attn: float = setting(0.0, low=0.0, high=1000.0, doc="k for attention; 0: as matrix")
    clip_std_mlp: float = setting(0.0, low=0.0, high=1000.0, doc="k for MLPs; 0: as matrix")
    clip_std_proj: float = setting(0.0, low=0.0, high=1000.0, doc="k for the rest; 0: as matrix")
    clip_hessian: float = setting(
        0.0,
        low=0.0,
        high=0.9,
        doc='x of clip = "std": rows that matter x more than the mean get steps that much wider',
    )
    frequency_power: float = setting(
        0.35, low=0.0, high=0.5, doc='x of clip = "std": a token\'s row has steps ~ its count^-x'
    )
    scale_digits: int = setting(
        3, low=0, high=10, doc="binary digits kept of a row's float16 scale; codes make up for it"
    )
    group: int = setting(
        0, low=0, high=65_536, doc="columns of a matrix that share a scale; 0: a whole row does"
    )
    refit_scales: bool = setting(
        False, doc="after rounding, let each scale fit its codes best where that lowers the error"
    )
    grid: str = setting(
        "uniform",
        choices=("uniform", "e8", "codebook"),
        doc="matrices: whole steps | points of the lattice E8 | entries of a trained table",
    )
    codebook_dim: int = setting(
        2, low=1, high=8, doc='grid = "codebook": weights an entry; 2^(bits x dim) <= 256 entries'
    )
    awq_columns: int = setting(
        0,
        low=0,
        high=65_536,
        doc="columns of each matrix that get finer steps: those that matter most",
    )
    awq_halvings: int = setting(2, low=1, high=4, doc="how often their steps are halved")

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
    lqer_rank: int = setting(
        0, low=0, high=64, doc="rank of what is added to the tensors of the largest errors; 0: none"
    )
    lqer_tensors: int = setting(3, low=1, high=1000, doc="how many tensors that are")
    lqer_bits_left: int = setting(4, low=2, high=8, doc="bits of the factor of outputs")
    lqer_bits_right: int = setting(4, low=2, high=8, doc="bits of the factor of inputs")
    sparse_share: float = setting(
        0.0, low=0.0, high=0.1, doc="share of all weights, the costliest errors, stored exactly"
    )
    eggroll_trials: int = setting(
        0,
        low=0,
        doc="random changes of a few codes that are tried on calibration text and kept "
        "where the loss falls",
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
        for role in ROLES:
            bits = self.bits(role)
            allowed = 1 <= bits <= 8 or bits == FLOAT_BITS
            require(allowed, f"quant.bits_{role}", got=bits, want="1..8, or 16 for float16")
        for key, broken, want in (*self._broken_grids(), *self._broken_methods()):
            require(not broken, f"quant.{key}", got=getattr(self, key), want=want)

    def _broken_grids(self) -> list[tuple[str, bool, str]]:
        """Return the rules between keys of grids and steps: key, whether it is broken, remedy."""
        coded = [self.bits(role) for role in ROLES if self.bits(role) != FLOAT_BITS]
        least, most = min(coded, default=8), max(coded, default=1)
        clip, book = self.clip, self.grid == "codebook"
        finer = self.awq_columns > 0
        unclipped = clip == "std" or (clip != "mean" and most + self.awq_halvings <= 8)
        return [
            ("clip", clip == "mean" and most > 2, "another unless all quant.bits_* are 1, 2 or 16"),
            ("clip", clip != "mean" and least < 2, '"mean" where a quant.bits_* is 1'),
            ("clip", book and clip == "std", '"max" or "search" with quant.grid = "codebook"'),
            ("clip_hessian", self.clip_hessian > 0 and clip != "std", '0 unless clip = "std"'),
            ("allocation", self.allocation != "std" and clip != "std", '"std" unless clip = "std"'),
            ("grid", self.grid != "uniform" and least < 2, '"uniform" where a bits_* is 1'),
            ("codebook_dim", book and self.codebook_dim * most > 8, "at most 8 / quant.bits_*"),
            ("awq_columns", finer and self.grid != "uniform", '0 unless grid = "uniform"'),
            ("awq_columns", finer and not unclipped, '0 unless clip = "std" or bits leave room'),
        ]

    def _broken_methods(self) -> list[tuple[str, bool, str]]:
        """Return the rules between keys of rounding, repairs and healing, in the same form."""
        plain = self.grid == "uniform" and all(self.bits(role) > 1 for role in ROLES)
        heals = "heal_steps" if self.heal_steps else "heal_seconds"
        repairs = self.lqer_rank > 0 or self.sparse_share > 0
        moves = self.refit_scales or self.awq_columns > 0 or self.eggroll_trials > 0
        simple = '0 unless quant.grid is "uniform" and no bits_* is 1'
        return [
            ("heal_seconds", self.heal_steps > 0 < self.heal_seconds, "0 when heal_steps is set"),
            ("rate_weight", self.rate_weight > 0 and not plain, simple),
            ("eggroll_trials", self.eggroll_trials > 0 and not plain, simple),
            (heals, self.heals and not plain, simple),
            (heals, self.heals and repairs, "0 with lqer_rank or sparse_share"),
            (heals, self.heals and moves, "0 with refit_scales, awq_columns or eggroll_trials"),
        ]

    def bits(self, role: str) -> int:
        """Return the bits of one role's matrices."""
        return int(getattr(self, f"bits_{role}"))

    @property
    def needs_inputs(self) -> bool:
        """Whether the Hessians of the matrices' inputs are wanted."""
        return self.method == "gptq" or self.clip_hessian > 0 or self.awq_columns > 0

    @property
    def grid_settings(self) -> dict[str, Any]:
        """The settings that decide the grid of given weights, as plain values."""
        return {key: value for key, value in to_table(self).items() if key not in _ON_THE_GRID}

    @property
    def calibrates(self) -> bool:
        """Whether rounding depends on text that the model is run on."""
        sees_loss = self.allocation == "sensitivity" or self.eggroll_trials > 0
        return self.needs_inputs or sees_loss

    @property
    def grid_width(self) -> int:
        """Columns that the grid of matrices rounds together."""
        return {"uniform": 1, "e8": 8, "codebook": self.codebook_dim}[self.grid]

    @property
    def heals(self) -> bool:
        """Whether the weights are trained on through the grid before they are packed."""
        return self.heal_steps > 0 or self.heal_seconds > 0
