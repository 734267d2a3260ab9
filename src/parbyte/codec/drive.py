"""The coding loop: one for both directions, because encoding is decoding with the answer known.

Lanes run in lockstep, one token of each open lane a step. The batch shape never changes: a lane
that has ended is fed BOS and not coded.
Shapes: B lanes, A open lanes, T positions of a chunk, V vocab.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import BitstreamError
from parbyte.base.log import Console
from parbyte.codec.freqs import to_freqs
from parbyte.codec.rangecoder import Coder
from parbyte.predict.predictor import Predictor


@dataclass(frozen=True)
class Driven:
    """What came out of the loop: each lane's tokens, and the length their bits ought to have."""

    tokens: list[NDArray[np.uint16]]
    nats: float
    """-ln p of all coded tokens under the coded rows, float64: the ideal codelength."""


def drive(
    predictor: Predictor, coder: Coder, lengths: Sequence[int], bos_id: int, console: Console
) -> Driven:
    """Code lanes of the given lengths from the predictor's first state, and leave it restored.

    Raises BitstreamError if the predictor gives rows that cannot be coded, or from the coder.
    """
    lengths_B = np.array(lengths, np.int64)
    last_B = np.full(len(lengths), bos_id, np.int64)
    chunks: list[NDArray[np.int64]] = []
    nats, start, longest = 0.0, 0, int(lengths_B.max())
    watch = Stopwatch()
    predictor.restore()
    with console.progress("code", int(lengths_B.sum())) as progress:
        while start < longest:
            chunk_BT = np.full((len(lengths), min(predictor.chunk, longest - start)), bos_id)
            nats += _drive_chunk_(chunk_BT, predictor, coder, last_B, lengths_B - start)
            predictor.observe(torch.from_numpy(chunk_BT))
            chunks.append(chunk_BT)
            last_B, start = chunk_BT[:, -1], start + chunk_BT.shape[1]
            done = int(np.minimum(lengths_B, start).sum())
            progress.update(done, {"tokens/s": f"{done / max(watch.elapsed_s(), 1e-9):,.0f}"})
    predictor.restore()
    if not math.isfinite(nats):
        raise BitstreamError("the model gives no finite probabilities: pack it again")
    return Driven(_cut(chunks, lengths), nats)


def _drive_chunk_(
    chunk_BT: NDArray[np.int64],
    predictor: Predictor,
    coder: Coder,
    last_B: NDArray[np.int64],
    left_B: NDArray[np.int64],
) -> float:
    """Fill chunk_BT, which comes full of BOS, and return the nats of its tokens.

    last_B: the tokens before the chunk. left_B: tokens each lane still has from here on.
    """
    nats = 0.0
    for t in range(chunk_BT.shape[1]):
        rows_BV = predictor.step(torch.from_numpy(last_B))
        lanes_A = np.flatnonzero(left_B > t)
        rows_AV = rows_BV if len(lanes_A) == len(left_B) else rows_BV[torch.from_numpy(lanes_A)]
        freqs = to_freqs(rows_AV, portable=predictor.is_portable)
        symbols_A = coder.code(freqs, lanes_A)
        index_A1 = torch.from_numpy(symbols_A).to(rows_AV.device)[:, None]
        nats -= float(rows_AV.gather(1, index_A1).sum(dtype=torch.float64))
        chunk_BT[lanes_A, t] = symbols_A
        last_B = chunk_BT[:, t].copy()
    return nats


def _cut(chunks: list[NDArray[np.int64]], lengths: Sequence[int]) -> list[NDArray[np.uint16]]:
    """Return each lane's tokens without the padding behind its end."""
    if not chunks:
        return [np.zeros(0, np.uint16) for _ in lengths]
    tokens_BT = np.concatenate(chunks, axis=1).astype(np.uint16)
    return [row_T[:length] for row_T, length in zip(tokens_BT, lengths, strict=True)]
