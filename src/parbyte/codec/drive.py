"""The coding loop: one for both directions, because encoding is decoding with the answer known.

Lanes run in lockstep, one token of each open lane a step. The batch shape never changes: a lane
that has ended is fed BOS and not coded. On a GPU two groups of lanes take turns:

network  A0 B0 A1 B1 A2 ..      a group's next rows need its last symbols, so the coder works on one
coder       A0 B0 A1 B1 ..      group while the network works on the other
Shapes: B lanes, A open lanes, T positions of a chunk, V vocab.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import BitstreamError
from parbyte.base.log import Console
from parbyte.codec.freqs import to_weights
from parbyte.codec.rangecoder import Coder
from parbyte.kernels.transfer import send
from parbyte.predict.predictor import Predictor


@dataclass(frozen=True)
class Driven:
    """What came out of the loop: each lane's tokens, and the length their bits ought to have."""

    tokens: list[NDArray[np.uint16]]
    nats: float
    """-ln p of all coded tokens under the coded rows, float64: the ideal codelength."""


def drive(
    predictor: Predictor,
    coder: Coder,
    lengths: Sequence[int],
    bos_id: int,
    console: Console,
    *,
    turns: int = 1,
) -> Driven:
    """Code lanes of the given lengths from the predictor's first state, and leave it restored.

    turns: groups of lanes, each with a twin of the predictor, that take turns: while a GPU works on
    one group's next rows, the coder codes the other's. Part of the bitstream's order.
    Raises BitstreamError if the predictor gives rows that cannot be coded, or from the coder.
    """
    lengths_B = np.array(lengths, np.int64)
    shares = np.array_split(np.arange(len(lengths)), turns)
    groups = [
        _Group(each, lanes_B, lengths_B[lanes_B], bos_id)
        for each, lanes_B in zip(_predictors(predictor, turns), shares, strict=True)
        if len(lanes_B)
    ]
    chunks: list[NDArray[np.int64]] = []
    start, longest = 0, int(lengths_B.max())
    watch = Stopwatch()
    with console.progress("code", int(lengths_B.sum())) as progress:
        while start < longest:
            chunk_BT = np.full((len(lengths), min(predictor.chunk, longest - start)), bos_id)
            for group in groups:
                group.open_chunk(chunk_BT, start)
            for t in range(chunk_BT.shape[1]):
                for group in groups:
                    group.code(coder, t)
            coder.end_chunk()
            for group in groups:
                group.close_chunk()
            chunks.append(chunk_BT)
            start += chunk_BT.shape[1]
            done = int(np.minimum(lengths_B, start).sum())
            progress.update(done, {"tokens/s": f"{done / max(watch.elapsed_s(), 1e-9):,.0f}"})
    nats = sum(group.end() for group in groups)
    if not math.isfinite(nats):
        raise BitstreamError("the model gives no finite probabilities: pack it again")
    return Driven(_cut(chunks, lengths), nats)


class _Group:
    """Lanes that are asked for and coded together, and the predictor that knows their pasts."""

    def __init__(
        self,
        predictor: Predictor,
        lanes_B: NDArray[np.intp],
        lengths_B: NDArray[np.int64],
        bos_id: int,
    ) -> None:
        self._predictor, self._lanes_B, self._lengths_B = predictor, lanes_B, lengths_B
        self._last_B = torch.full((len(lanes_B),), bos_id)
        self._nats: Tensor | float = 0.0
        predictor.restore()

    def open_chunk(self, chunk_of_all: NDArray[np.int64], start: int) -> None:
        """Ask for the first row of a chunk, which comes full of BOS and is filled by `code`."""
        self._chunk_BT = chunk_of_all[self._lanes_B[0] : self._lanes_B[-1] + 1]
        self._left_B = self._lengths_B - start
        self._ask()

    def code(self, coder: Coder, t: int) -> None:
        """Wait for position t's rows, code the open lanes with them and ask for the next ones."""
        open_A = np.flatnonzero(self._left_B > t)
        if len(open_A):
            symbols_A = coder.code(self._weights.freqs(open_A), self._lanes_B[open_A])
            self._chunk_BT[open_A, t] = symbols_A
        rows_BV = self._rows_BV
        self._last_B = send(self._chunk_BT[:, t].copy(), rows_BV.device)
        log_probs_B = rows_BV.gather(1, self._last_B[:, None])[:, 0].double()
        if len(open_A) < len(self._left_B):
            is_open_B = torch.from_numpy(self._left_B > t).to(rows_BV.device)
            log_probs_B = torch.where(is_open_B, log_probs_B, 0.0)
        self._nats = self._nats - log_probs_B.sum()
        if t + 1 < self._chunk_BT.shape[1]:
            self._ask()

    def close_chunk(self) -> None:
        """Let the predictor learn from the chunk."""
        self._predictor.observe(torch.from_numpy(self._chunk_BT))

    def end(self) -> float:
        """Leave the predictor restored; return the nats of all that was coded."""
        self._predictor.restore()
        return float(self._nats)

    def _ask(self) -> None:
        self._rows_BV = self._predictor.step(self._last_B)
        self._weights = to_weights(self._rows_BV, portable=self._predictor.is_portable)


def _predictors(predictor: Predictor, turns: int) -> list[Predictor]:
    """Return as many predictors of one law as there are turns."""
    twins = [predictor.twin() for _ in range(turns - 1)]
    if None in twins:
        raise BitstreamError("this model's lanes cannot take turns")
    return [predictor, *(twin for twin in twins if twin is not None)]


def _cut(chunks: list[NDArray[np.int64]], lengths: Sequence[int]) -> list[NDArray[np.uint16]]:
    """Return each lane's tokens without the padding behind its end."""
    if not chunks:
        return [np.zeros(0, np.uint16) for _ in lengths]
    tokens_BT = np.concatenate(chunks, axis=1).astype(np.uint16)
    return [row_T[:length] for row_T, length in zip(tokens_BT, lengths, strict=True)]
