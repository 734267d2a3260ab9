"""The recipe's [quant] table: bits by role, and how the step of each row is chosen."""

from dataclasses import dataclass

from parbyte.base.settings import require, setting

FLOAT_BITS = 16


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

    def __post_init__(self) -> None:
        for role in ("embed", "table", "attn", "mlp", "proj"):
            bits = getattr(self, f"bits_{role}")
            allowed = 2 <= bits <= 8 or bits == FLOAT_BITS
            require(allowed, f"quant.bits_{role}", got=bits, want="2..8, or 16 for float16")
