"""The contract of every causal predictor: what it may see before it prices a token.

The law, for one lane, chunk = 4 (a lane's past begins as [BOS]):

tokens        0 1 2 3 | 4 5 6 7 | 8 9          every position is predicted exactly once
observed      . . . .   0 1 2 3   0 .. 7       past by `observe`: caches, counts, adapters know it
row of 0      -                                nothing but BOS
row of 2      0 1                              tokens of its own chunk before it, no others
row of 5                0 1 2 3 4              all that was observed, and its chunk before it
row of 9                          0 .. 8

`log_probs` computes many rows at once, `step` one; they are the same law. Scoring calls `log_probs`
and then `observe`; coding calls `step` chunk times and then `observe`.
Shapes: B lanes, T positions, V vocab.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Predictor(ABC):
    """A distribution over the next token of B independent lanes, given their pasts alone."""

    vocab_size: int
    chunk: int
    """Positions between two `observe` calls; part of the law."""
    is_portable: bool = False
    """Whether `step` gives the same bits on every machine. What wraps a predictor passes it on."""

    _pending: tuple[Tensor, ...] = ()

    @abstractmethod
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """Return the rows of the current chunk's first T positions; change nothing.

        tokens_BT: int64, T <= chunk. Returns float32[B, T, V] in nats, each row summing to one:
        row t depends on tokens_BT[:, :t] and on what was observed, on nothing else.
        """

    def step(self, last_B: Tensor) -> Tensor:
        """Return the next row inside the current chunk, float32[B, V]: the same law, one position.

        last_B: int64, the token before the position, BOS at the very start of the lanes.
        This default is slow and obviously right; a cache makes it fast and is tested against it.
        """
        assert len(self._pending) < self.chunk, "observe() must call Predictor.observe()"
        self._pending = (*self._pending, last_B)
        # The first of them was observed already; the row asked for may not depend on its own token.
        tokens_BT = torch.stack([*self._pending[1:], torch.zeros_like(last_B)], dim=1)
        return self.log_probs(tokens_BT)[:, -1]

    @abstractmethod
    def observe(self, chunk_BT: Tensor) -> None:
        """Make these tokens the past; from here on caches and adapters may learn from them.

        chunk_BT: int64, T <= chunk, and T < chunk only at the end of the text. An ended lane is fed
        BOS. An implementation that keeps the default `step` calls super().observe().
        """
        self._pending = ()

    @abstractmethod
    def restore(self) -> None:
        """Go back to the artifact's state, bit for bit: no past, nothing learned.

        An implementation that keeps the default `step` calls super().restore().
        """
        self._pending = ()

    def twin(self) -> "Predictor | None":
        """Return a second predictor with the same law and a past of its own.

        None where lanes are not independent of each other, or where nothing would be gained.
        """
        return None


def is_padding(last_B1: Tensor, chunk_BT: Tensor, bos_id: int) -> Tensor:
    """Return bool[B, T]: the tokens that say nothing, the BOS after BOS of an ended lane.

    last_B1: the token before the chunk. The first BOS of an ended lane is the end of its text.
    """
    before_BT = torch.cat([last_B1, chunk_BT[:, :-1]], dim=1)
    return (chunk_BT == bos_id) & (before_BT == bos_id)
