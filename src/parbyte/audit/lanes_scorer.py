"""A predictor as a scorer: its lanes and chunks as the codec walks them, one price a position.

A lane's first BOS is implied and never priced. Lanes are decoded in lockstep, so a position's
moment is its place in its lane.
Shapes: N positions of a stream, B lanes, T positions of a chunk, V vocab, K alternatives.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.audit.scorer import Nats, Scorer, Scores, Stream
from parbyte.base.errors import DataError
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import row_prices
from parbyte.text.lanes import Lanes, lane_offsets, plan_lanes


class LanesScorer(Scorer):
    """Any predictor, priced as `score.prices` prices its chunks."""

    def __init__(
        self,
        predictor: Predictor,
        bos_id: int,
        *,
        name: str = "predictor",
        num_lanes: int = 3,
        min_lane_tokens: int = 1,
        window: int = 0,
    ) -> None:
        self.name = name
        self.vocab_size = predictor.vocab_size
        self.bos_id: int = bos_id
        self.chunk = predictor.chunk
        self.window = window
        self.takes_apart = True
        self.runs_beside = predictor.is_portable
        self._predictor = predictor
        self._num_lanes = num_lanes
        self._min_lane_tokens = min_lane_tokens

    def score(self, stream_N: Stream) -> Scores:
        """See Scorer."""
        lanes = self._lanes(stream_N)
        return self._place(lanes, *self._walk(lanes), len(stream_N))

    def score_apart(self, inputs_M: Stream, targets_M: Stream) -> Scores:
        """See Scorer. What a chunk's rows are asked with ends in a target; inputs are observed."""
        stream_N = np.concatenate([inputs_M, targets_M[-1:]])
        priced_N = np.concatenate([inputs_M[:1], targets_M])
        lanes = self._lanes(stream_N)
        return self._place(lanes, *self._walk(lanes, self._lanes(priced_N)), len(stream_N))

    def order(self, stream_N: Stream) -> NDArray[np.int64]:
        """See Scorer. A position's place in its lane."""
        order_N = np.full(len(stream_N), -1, np.int64)
        lanes = self._lanes(stream_N)
        for start, length in zip(lane_offsets(lanes), lanes.lengths, strict=True):
            order_N[start : start + length] = np.arange(length)
        return order_N

    def score_until(self, stream_N: Stream, moment: int) -> Scores:
        """See Scorer. All lanes end at the moment."""
        lanes = self._lanes(stream_N)
        return self._place(lanes, *self._walk(_cut(lanes, moment)), len(stream_N))

    def alternatives(self, stream_N: Stream, position: int, tokens_K: Sequence[int]) -> Nats:
        """See Scorer. The past is walked once; then the chunk is priced for each token."""
        block_BT, lane, place = self._open_chunk(stream_N, position)
        nats_K = np.zeros(len(tokens_K))
        for k, token in enumerate(tokens_K):
            block_BT[lane, place] = token
            nats_K[k] = -float(self._predictor.log_probs(block_BT)[lane, place, token])
        self._predictor.restore()
        return nats_K

    def guess(self, stream_N: Stream, position: int) -> Nats | None:
        """See Scorer. The row that the predictor gives for the stream as it is."""
        block_BT, lane, place = self._open_chunk(stream_N, position)
        row_V = self._predictor.log_probs(block_BT)[lane, place]
        self._predictor.restore()
        return row_V.double().exp().cpu().numpy()

    def score_reordered(self, stream_N: Stream) -> Scores | None:
        """See Scorer. The lanes change places."""
        lanes = self._lanes(stream_N)
        if len(lanes.tokens) < 2:
            return None
        turned = Lanes(lanes.tokens[::-1], lanes.continues[::-1])
        rows, row_error = self._walk(turned)
        return self._place(lanes, rows[::-1], row_error, len(stream_N))

    def _lanes(self, stream_N: Stream) -> Lanes:
        if not len(stream_N) or stream_N[0] != self.bos_id:
            raise DataError(f"a stream for '{self.name}' begins with BOS ({self.bos_id})")
        starts = np.flatnonzero(stream_N == self.bos_id)
        documents = [piece[1:] for piece in np.split(stream_N, starts[1:])]
        return plan_lanes(
            documents, self.bos_id, self._num_lanes, min_lane_tokens=self._min_lane_tokens
        )

    def _walk(self, lanes: Lanes, priced: Lanes | None = None) -> tuple[list[Nats], float]:
        """Return the prices of each lane, and the largest |ln sum p| of all rows.

        priced: other tokens at the same places, whose prices are asked for.
        """
        predictor, longest = self._predictor, max(lanes.lengths)
        parts: list[Nats] = []
        row_error = 0.0
        predictor.restore()
        for start in range(0, longest, predictor.chunk):
            stop = min(start + predictor.chunk, longest)
            tokens_BT = torch.from_numpy(lanes.padded(start, stop, self.bos_id))
            priced_BT = torch.from_numpy((priced or lanes).padded(start, stop, self.bos_id))
            # The last token is in no row's past, so it is a target and nothing else.
            asked_BT = torch.cat([tokens_BT[:, :-1], priced_BT[:, -1:]], dim=1)
            rows_BTV = predictor.log_probs(asked_BT)
            predictor.observe(tokens_BT)
            parts.append(row_prices(rows_BTV, priced_BT).astype(np.float64))
            row_error = max(row_error, float(rows_BTV.logsumexp(-1).abs().max()))
        predictor.restore()
        nats_BT = np.concatenate(parts, axis=1) if parts else np.zeros((len(lanes.tokens), 0))
        return [row[:n] for row, n in zip(nats_BT, lanes.lengths, strict=True)], row_error

    def _place(self, lanes: Lanes, rows: list[Nats], row_error: float, length: int) -> Scores:
        nats_N = np.full(length, np.nan)
        times_N = np.zeros(length, np.int64)
        for start, row_T in zip(lane_offsets(lanes), rows, strict=True):
            nats_N[start : start + len(row_T)] = row_T
            times_N[start : start + len(row_T)] += 1
        total = float(sum(row_T.sum() for row_T in rows))
        return Scores(nats_N=nats_N, times_N=times_N, total_nats=total, row_error=row_error)

    def _open_chunk(self, stream_N: Stream, position: int) -> tuple[Tensor, int, int]:
        """Walk up to a position's chunk; return the chunk as far as it, its lane and its place."""
        lanes, predictor = self._lanes(stream_N), self._predictor
        lane = int(np.searchsorted(lane_offsets(lanes), position, side="right")) - 1
        moment = position - lane_offsets(lanes)[lane]
        first = moment // predictor.chunk * predictor.chunk
        predictor.restore()
        for start in range(0, first, predictor.chunk):
            past_BT = torch.from_numpy(lanes.padded(start, start + predictor.chunk, self.bos_id))
            predictor.log_probs(past_BT)
            predictor.observe(past_BT)
        block_BT = torch.from_numpy(lanes.padded(first, moment + 1, self.bos_id))
        return block_BT, lane, moment - first


def _cut(lanes: Lanes, moment: int) -> Lanes:
    return Lanes([lane[:moment] for lane in lanes.tokens], lanes.continues)
