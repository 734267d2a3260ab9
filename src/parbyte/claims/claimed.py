"""What a published scorer says: nats in its own order and multiplicity, marked as claimed for good.

Shapes: M scored places in the scorer's order, N tokens of the stream, B windows, L window, D
model_dim, V vocab.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.units import bits_per_byte


class Base(Protocol):
    """The frozen network under a claim; model.gpt.GPT is one."""

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return [B, T, D] after the last norm."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [..., V], softcapped."""
        ...


@dataclass(frozen=True)
class ClaimedRate:
    """Bits per byte as claimed: however it is formatted, the word comes with it."""

    value: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} bpb (claimed)"

    def __str__(self) -> str:
        return format(self, ".4f")

    __repr__ = __str__

    def to_json(self) -> dict[str, float]:
        """Return {"claimed_bpb": value}: the only key it may be stored under."""
        return {"claimed_bpb": self.value}


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A ledger of kind "claimed": one entry for each time that a token was scored.

    nats_M: float64. positions_M: int64, where the token stands in the stream; a position that
    occurs twice was scored twice. entropy_M: float64, nats of the neural distribution it came from.
    """

    kind = "claimed"
    nats_M: Tensor
    positions_M: Tensor
    entropy_M: Tensor

    def rate(self, byte_counts_N: NDArray[np.integer]) -> ClaimedRate:
        """Return bits per byte as the script counts them: repeated tokens bring their bytes too."""
        num_bytes = int(byte_counts_N[self.positions_M.cpu().numpy()].sum())
        return ClaimedRate(bits_per_byte(float(self.nats_M.sum()), num_bytes))

    def answer(self) -> dict[str, Any]:
        """Return what the audit asks of somebody else's scorer (docs/audit.md)."""
        nats, positions = self.nats_M.cpu().numpy(), self.positions_M.cpu().numpy()
        return {"nats": nats, "positions": positions}

    def priced(self, nats_M: Tensor) -> "Claimed":
        """Return the same places at other prices."""
        return replace(self, nats_M=nats_M.double())


def joined(parts: Sequence[Claimed]) -> Claimed:
    """Return one ledger of several, in their order; an empty one of none."""
    none = torch.zeros(0, dtype=torch.float64)
    return Claimed(
        nats_M=torch.cat([part.nats_M for part in parts] or [none]),
        positions_M=torch.cat([part.positions_M for part in parts] or [none.long()]),
        entropy_M=torch.cat([part.entropy_M for part in parts] or [none]),
    )


def nats_and_entropy(logits_MV: Tensor, answers_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answers' nats and the rows' entropy in nats, both float64[M]."""
    log_probs_MV = logits_MV.log_softmax(-1)
    nats_M = -log_probs_MV.gather(1, answers_M[:, None])[:, 0]
    entropy_M = -(log_probs_MV.exp() * log_probs_MV).sum(-1)
    return nats_M.double(), entropy_M.double()
