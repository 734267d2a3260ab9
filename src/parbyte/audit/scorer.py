"""The seam of the audit: anything that turns a stream of tokens into nats, one price a position.

A stream is uint16[N], each document behind its BOS. A scorer is a black box: it batches as it will,
in windows, lanes and chunks, and the checks ask only how its answers move when its input does.
Shapes: N positions of a stream, B lanes, T positions of a chunk, V vocab, K alternatives.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError

Stream = NDArray[np.uint16]
Nats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scorer said of a stream.

    nats_N: NaN where nothing was scored. times_N: how often each position was scored.
    """

    nats_N: Nats
    times_N: NDArray[np.int64]
    total_nats: float
    """The scorer's own total, or the sum of all its prices."""
    num_bytes: int | None = None
    """Bytes of text that the scorer says the stream stands for."""
    row_error: float | None = None
    """Largest |ln sum p| over all rows, where whole rows were seen."""


class Scorer(ABC):
    """A black box from a stream to its nats."""

    name: str
    vocab_size: int
    bos_id: int | None = None
    chunk: int = 0
    """Positions between two updates of its state; 0 if unknown."""
    window: int = 0
    """Longest span it sees at once; 0 if unknown."""
    takes_apart: bool = False
    """True if it can be given inputs and targets as two arrays."""
    is_per_document: bool = False
    """True if it says that documents are priced independently of each other."""
    runs_beside: bool = False
    """True if another thread may ask it while this one asks another scorer, with no other bits."""

    @abstractmethod
    def score(self, stream_N: Stream) -> Scores:
        """Price a stream from scratch, in its real batching."""

    def score_apart(self, inputs_M: Stream, targets_M: Stream) -> Scores:
        """Price targets_M[i], at position i + 1 of a stream, given inputs_M[: i + 1]; M = N - 1.

        Only asked of a scorer that takes them apart. Position 0 is an input only.
        """
        raise NotImplementedError

    def order(self, stream_N: Stream) -> NDArray[np.int64]:
        """Return when each position is decoded: it may depend on smaller moments, -1 is free."""
        order_N = np.arange(len(stream_N), dtype=np.int64)
        if len(stream_N) and stream_N[0] == self.bos_id:
            order_N[0] = -1
        return order_N

    def score_until(self, stream_N: Stream, moment: int) -> Scores:
        """Price only what is decoded before a moment; NaN for the rest of the stream."""
        scores = self.score(stream_N[:moment])
        rest = len(stream_N) - moment
        return Scores(
            nats_N=np.pad(scores.nats_N, (0, rest), constant_values=np.nan),
            times_N=np.pad(scores.times_N, (0, rest)),
            total_nats=scores.total_nats,
        )

    def alternatives(self, stream_N: Stream, position: int, tokens_K: Sequence[int]) -> Nats:
        """Return the price of each token at a position, the stream ending there; float64[K]."""
        moment = int(self.order(stream_N)[position]) + 1
        changed_N = stream_N.copy()
        nats_K = np.zeros(len(tokens_K))
        for k, token in enumerate(tokens_K):
            changed_N[position] = token
            nats_K[k] = self.score_until(changed_N, moment).nats_N[position]
        return nats_K

    def guess(self, stream_N: Stream, position: int) -> Nats | None:
        """Return the distribution float64[V] at a position, if it can be asked for as a whole."""
        return None

    def score_reordered(self, stream_N: Stream) -> Scores | None:
        """Price a stream's independent parts in another order; None if there are no such parts."""
        if not self.is_per_document or self.bos_id is None:
            return None
        starts = np.flatnonzero(stream_N == self.bos_id)
        if len(starts) < 2:
            return None
        places = np.split(np.arange(len(stream_N)), starts[1:])[::-1]
        index_N = np.concatenate(places)
        scores = self.score(stream_N[index_N])
        nats_N, times_N = np.empty_like(scores.nats_N), np.empty_like(scores.times_N)
        nats_N[index_N], times_N[index_N] = scores.nats_N, scores.times_N
        return Scores(nats_N=nats_N, times_N=times_N, total_nats=scores.total_nats)


def to_scores(answer: Any, length: int, name: str) -> Scores:
    """Read what somebody else's scorer returned: an array, or a mapping (docs/audit.md).

    Raises DataError if it is neither, or does not fit a stream of that length.
    """
    table: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {"nats": answer}
    try:
        prices = np.asarray(table["nats"], np.float64).reshape(-1)
        places = np.asarray(table.get("positions", np.arange(len(prices))), np.int64).reshape(-1)
        total, num_bytes = table.get("total"), table.get("bytes")
        total = None if total is None else float(total)
        num_bytes = None if num_bytes is None else int(num_bytes)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: torch gives no array of a tensor that wants its gradient.
        raise DataError(f"scorer '{name}' gave no usable 'nats': {error}") from None
    if "positions" not in table and len(prices) != length:
        raise DataError(f"scorer '{name}' gave {len(prices):,} prices for {length:,} tokens")
    if len(places) != len(prices) or np.any((places < 0) | (places >= length)):
        raise DataError(f"scorer '{name}' gave positions that do not fit its {length:,} tokens")
    is_scored = ~np.isnan(prices)
    prices, places = prices[is_scored], places[is_scored]
    nats_N = np.full(length, np.nan)
    nats_N[places] = prices
    return Scores(
        nats_N=nats_N,
        times_N=np.bincount(places, minlength=length),
        total_nats=float(prices.sum()) if total is None else total,
        num_bytes=num_bytes,
    )


def behind_first(scores: Scores) -> Scores:
    """Put a position that was not priced before all others: what targets alone do not have."""
    return replace(
        scores,
        nats_N=np.concatenate([[np.nan], scores.nats_N]),
        times_N=np.concatenate([np.zeros(1, np.int64), scores.times_N]),
    )


def gaps(one_N: Nats, other_N: Nats) -> Nats:
    """Return |difference| of prices; 0 for equal infinities and for both unscored, else inf."""
    same_N = (one_N == other_N) | (np.isnan(one_N) & np.isnan(other_N))
    with np.errstate(invalid="ignore"):
        gap_N = np.abs(one_N - other_N)
    gap_N[np.isnan(gap_N)] = np.inf
    gap_N[same_N] = 0.0
    return gap_N
