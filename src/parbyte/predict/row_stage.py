"""Stages that take the rows of a predictor and give better ones, learning token by token.

A stage's state moves with every token, not with every chunk: row t of a lane may use tokens :t of
the chunk of every lane, since the lanes are coded in lockstep. So `log_probs` has to run ahead of
the past; it does so with an undo log, and `observe` keeps what it learned if the tokens are the
same, which in scoring they are.
Shapes: B lanes, T positions, V vocab.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.predict.predictor import Predictor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class RowStage(Predictor):
    """A predictor over a predictor: `step` and `log_probs` are one computation, bit for bit.

    A subclass holds a state and moves it: `_predict` and `_learn` in turns, `_walk` both over many
    positions. What it keeps in small arrays is copied to be gone back to; a large table has an undo
    log of its own.
    """

    def __init__(self, inner: Predictor) -> None:
        self.vocab_size, self.chunk = inner.vocab_size, inner.chunk
        self.is_portable = inner.is_portable
        self._inner = inner
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. One walk over the chunk, ahead of the past."""
        return torch.from_numpy(self._run_ahead(_to_ints(tokens_BT)))

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. Learns the last token, unless the chunk begins with this step."""
        last_B1 = _to_ints(last_B)[:, None]
        stepped_BT = last_B1[:, :0]
        if self._stepped_BT is not None:
            stepped_BT = np.concatenate([self._stepped_BT, last_B1], axis=1)
        assert stepped_BT.shape[1] < self.chunk, "observe() comes after `chunk` steps"
        self._learn_up_to(stepped_BT)
        rows_B1V = _to_rows(self._inner.step(last_B)[:, None])
        self._stepped_BT, self._is_predicted = stepped_BT, True
        return torch.from_numpy(self._predict(rows_B1V)[:, 0])

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. What was learned ahead of the past is kept if it is the same."""
        self._learn_up_to(_to_ints(chunk_BT))
        self._inner.observe(chunk_BT)
        self._settle()
        self._ahead_BT = self._stepped_BT = None
        self._is_predicted = False

    def restore(self) -> None:
        """See Predictor. Forgets all that was learned."""
        self._inner.restore()
        self._num_lanes = 0
        self._ahead_BT: Ints | None = None
        self._stepped_BT: Ints | None = None
        self._is_predicted = False

    def _learn_up_to(self, tokens_BT: Ints) -> None:
        """Bring the state to where these tokens of the chunk are learned, and no more."""
        self._open_for(len(tokens_BT))
        ahead_BT = tokens_BT[:, :0] if self._ahead_BT is None else self._ahead_BT
        if np.array_equal(ahead_BT, tokens_BT):
            return
        if self._is_predicted and np.array_equal(ahead_BT, tokens_BT[:, :-1]):
            self._learn(np.ascontiguousarray(tokens_BT[:, -1:]))
            self._ahead_BT, self._is_predicted = tokens_BT, False
        else:
            self._run_ahead(tokens_BT)

    def _run_ahead(self, tokens_BT: Ints) -> Floats:
        """Return the rows of the chunk's first positions; leave their tokens learned."""
        self._open_for(len(tokens_BT))
        if self._ahead_BT is not None:
            self._rewind()
        self._ahead_BT, self._is_predicted = tokens_BT, False
        if tokens_BT.shape[1] == 0:
            return np.zeros((len(tokens_BT), 0, self.vocab_size), np.float32)
        rows_BTV = _to_rows(self._inner.log_probs(torch.from_numpy(tokens_BT)))
        return self._walk(tokens_BT, rows_BTV)

    def _open_for(self, num_lanes: int) -> None:
        if self._num_lanes != num_lanes:
            assert self._num_lanes == 0, "restore() comes before another number of lanes"
            self._num_lanes = num_lanes
            self._open(num_lanes)
            self._saved = [array.copy() for array in self._kept()]

    def _rewind(self) -> None:
        """Go back to the state of the last `_settle`, or to the first."""
        self._undo()
        for array, saved in zip(self._kept(), self._saved, strict=True):
            array[...] = saved

    def _settle(self) -> None:
        """Make the present state the one to go back to."""
        self._keep()
        for array, saved in zip(self._kept(), self._saved, strict=True):
            saved[...] = array

    @abstractmethod
    def _open(self, num_lanes: int) -> None:
        """Make the first state for so many lanes."""

    @abstractmethod
    def _predict(self, rows_B1V: Floats) -> Floats:
        """Return the rows of one position, from the rows below."""

    @abstractmethod
    def _learn(self, tokens_B1: Ints) -> None:
        """Learn the tokens of the position that was predicted last."""

    @abstractmethod
    def _walk(self, tokens_BT: Ints, rows_BTV: Floats) -> Floats:
        """Predict and learn position after position; return the rows."""

    @abstractmethod
    def _kept(self) -> list[NDArray[Any]]:
        """Return the arrays whose copies are gone back to; their shapes never change."""

    def _undo(self) -> None:
        """Take back what the undo log holds; without a table there is nothing."""

    def _keep(self) -> None:
        """Empty the undo log, and forget what has no room; without a table there is nothing."""


def _to_rows(rows: Tensor) -> Floats:
    return np.ascontiguousarray(rows.detach().to("cpu", torch.float32).numpy())


def _to_ints(tokens: Tensor) -> Ints:
    return np.ascontiguousarray(tokens.to("cpu", torch.int64).numpy())
