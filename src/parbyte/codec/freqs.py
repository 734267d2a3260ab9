"""Log-probabilities become the numbers that the coder codes with: once, here, for both directions.

A symbol is coded in two parts, first its group, then its member within the group:
    symbol = group * M + member,    p(symbol) = p(group) p(member | group),    M about sqrt(V).
The coder then handles 2 sqrt(V) numbers instead of V, and because each part is rounded to 24 bits
with a floor of 2^-24, even V = 65,536 loses next to nothing (one part would lose 0.006 bits a
token to the floor alone).
Shapes: B lanes, V vocab, G groups, M members.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.errors import BitstreamError

_SMALLEST = 1e-30
"""Floor that keeps every group and every member codable; far below the coder's own 2^-24."""


@dataclass(frozen=True)
class Freqs:
    """Weights of one step: rows need not sum to one, the coder scales them to 24 bits."""

    groups_BG: NDArray[np.float32]
    members_BGM: NDArray[np.float32]

    @property
    def group_size(self) -> int:
        """Number of members in a group."""
        return self.members_BGM.shape[2]

    def members_of(self, groups_B: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the member weights float32[B, M] within each lane's group."""
        return self.members_BGM[np.arange(len(groups_B)), groups_B]


def to_freqs(log_probs_BV: Tensor) -> Freqs:
    """Turn rows of log-probabilities into group and member weights, every symbol above zero.

    log_probs_BV: float32 nats. Raises BitstreamError if a row is not finite.
    """
    num_lanes, vocab_size = log_probs_BV.shape
    group_size = 1 << ((vocab_size - 1).bit_length() + 1) // 2
    num_groups = max(2, -(-vocab_size // group_size))  # the coder wants a choice
    probs_BV = log_probs_BV.exp().clamp_min(_SMALLEST)
    if (padding := num_groups * group_size - vocab_size) > 0:
        probs_BV = torch.nn.functional.pad(probs_BV, (0, padding), value=_SMALLEST)
    probs_BGM = probs_BV.view(num_lanes, num_groups, group_size)
    groups_BG = probs_BGM.sum(dim=2).cpu().numpy()
    if not np.isfinite(groups_BG.sum()):
        raise BitstreamError("the model gives no finite probabilities: pack it again")
    return Freqs(groups_BG, probs_BGM.cpu().numpy())
