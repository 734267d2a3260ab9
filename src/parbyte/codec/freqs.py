"""Log-probabilities become integers: once, here, the same for both directions.

A symbol is coded in two parts, first its group, then its member within the group:
    symbol = group * M + member,    p(symbol) = p(group) p(member | group),    M about sqrt(V).
Each part has integer frequencies of at least 1 that sum to 2^24. So the coder handles 2 sqrt(V)
numbers instead of V, every symbol can be coded, and even V = 65,536 loses next to nothing (in one
part the floor alone would cost it 0.006 bits a token).
Shapes: B lanes, A open ones, V vocab, G groups, M members, N either of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.errors import BitstreamError
from parbyte.kernels.transfer import Arriving

PRECISION_BITS = 24
"""Frequencies of a part sum to 2^24: constriction's default, and part of the bitstream's format."""

_SMALLEST = 1e-30
"""Weight of an impossible symbol, so that a group of them still has a sum to divide by."""


@dataclass(frozen=True)
class Freqs:
    """Frequencies of one step as the coder takes them: whole numbers, less the 1 it adds to each.

    groups_AG: float32, rows sum to 2^24 - G. members_BGM: float32 weights, not yet integers: they
    become so for the one group that is coded. rows_A: where the open lanes' weights stand among
    them. is_portable: in the kernels' fixed order.
    """

    groups_AG: NDArray[np.float32]
    members_BGM: NDArray[np.float32]
    rows_A: NDArray[np.intp]
    is_portable: bool = False

    @property
    def group_size(self) -> int:
        """Number of members in a group."""
        return self.members_BGM.shape[2]

    def members_of(self, groups_A: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the frequencies float32[A, M] within each lane's group; rows sum to 2^24 - M."""
        weights_AM = self.members_BGM[self.rows_A, groups_A]
        return _to_integers_portably(weights_AM) if self.is_portable else _to_integers(weights_AM)


class Weights:
    """The weights of one step's groups and members, on their way from the model to the coder."""

    def __init__(self, sums_BG: Tensor, members_BGM: Tensor, *, portable: bool = False) -> None:
        self._arriving = Arriving([sums_BG, members_BGM])
        self._is_portable = portable

    def freqs(self, rows_A: NDArray[np.intp] | None = None) -> Freqs:
        """Wait for the weights; return the frequencies of these rows, None being all.

        Raises BitstreamError if they are not finite.
        """
        sums_BG, members_BGM = self._arriving.wait()
        if not np.isfinite(sums_BG.sum()):
            raise BitstreamError("the model gives no finite probabilities: pack it again")
        if rows_A is None:
            rows_A = np.arange(len(sums_BG))
        to_integers = _to_integers_portably if self._is_portable else _to_integers
        return Freqs(to_integers(sums_BG[rows_A]), members_BGM, rows_A, self._is_portable)


def to_weights(log_probs_BV: Tensor, *, portable: bool = False) -> Weights:
    """Turn rows of log-probabilities, float32 nats, into weights; on a GPU nothing waits for it.

    portable: with the same bits on every machine.
    """
    num_lanes, vocab_size = log_probs_BV.shape
    group_size = 1 << ((vocab_size - 1).bit_length() + 1) // 2
    num_groups = max(2, -(-vocab_size // group_size))  # the coder wants a choice
    if portable:
        return _to_weights_portably(log_probs_BV, num_groups, group_size)
    probs_BV = log_probs_BV.exp().clamp_min_(_SMALLEST)
    if (padding := num_groups * group_size - vocab_size) > 0:
        probs_BV = torch.nn.functional.pad(probs_BV, (0, padding), value=_SMALLEST)
    probs_BGM = probs_BV.view(num_lanes, num_groups, group_size)
    return Weights(probs_BGM.sum(dim=2), probs_BGM)


def to_freqs(log_probs_AV: Tensor, *, portable: bool = False) -> Freqs:
    """Turn rows of log-probabilities into frequencies: `to_weights`, waited for."""
    return to_weights(log_probs_AV, portable=portable).freqs()


def _to_weights_portably(log_probs_BV: Tensor, num_groups: int, group_size: int) -> Weights:
    from parbyte.kernels.portable.weights import group_weights_  # it loads the compiler

    num_lanes = len(log_probs_BV)
    members_BGM = torch.empty(num_lanes, num_groups, group_size)
    sums_BG = torch.empty(num_lanes, num_groups)
    group_weights_(log_probs_BV.contiguous().numpy(), members_BGM.numpy(), sums_BG.numpy())
    return Weights(sums_BG, members_BGM, portable=True)


def _to_integers_portably(weights_AN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Do what `_to_integers` does, with sums in the kernels' order."""
    from parbyte.kernels.portable.weights import to_whole_numbers

    return to_whole_numbers(weights_AN, (1 << PRECISION_BITS) - weights_AN.shape[1])


def _to_integers(weights_AN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round rows of positive weights down to whole numbers that sum to 2^24 - N exactly.

    Below 2^24 float32 holds whole numbers and their sums exactly, so the coder, which scales by
    (2^24 - N) / sum and adds 1 to each, changes nothing and rounds nothing.
    """
    free = (1 << PRECISION_BITS) - weights_AN.shape[1]
    sums_A1 = weights_AN.sum(axis=1, keepdims=True, dtype=np.float64)
    whole_AN = np.floor(weights_AN * (free / sums_A1))
    rows_A, largest_A = np.arange(len(whole_AN)), whole_AN.argmax(axis=1)
    whole_AN[rows_A, largest_A] += free - whole_AN.sum(axis=1)
    return whole_AN.astype(np.float32)
