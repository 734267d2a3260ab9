"""Documents laid out in lanes: independent streams that are scored and coded side by side.

stream   BOS a a a BOS b b b b b b b BOS c c     documents one after the other, each behind its BOS
lane 0  (BOS)a a a BOS b b                       the first BOS of a lane is implied, never coded
lane 1                     b b b b b BOS c c     starts in mid-document: it continues
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MIN_LANE_TOKENS = 1024
"""A short text gets fewer lanes than asked for: every lane starts without a past, which costs."""

_SNAP_DIVISOR = 16
"""A lane's end moves to a document's end within 1/16 of a lane, so lanes stay within 1/8."""


@dataclass(frozen=True)
class Lanes:
    """The ids to be coded, lane by lane; the concatenation is the text in its order."""

    tokens: list[NDArray[np.uint16]]
    continues: tuple[bool, ...]
    """Per lane: True if it starts in mid-document, False if an uncoded BOS stands before it."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of coded tokens per lane."""
        return tuple(len(lane) for lane in self.tokens)

    def padded(self, start: int, stop: int, pad_id: int) -> NDArray[np.int64]:
        """Return positions start..stop of all lanes, int64[B, stop - start], ended lanes padded."""
        block_BT = np.full((len(self.tokens), stop - start), pad_id, np.int64)
        for row_T, lane in zip(block_BT, self.tokens, strict=True):
            piece = lane[start:stop]
            row_T[: len(piece)] = piece
        return block_BT


def plan_lanes(
    documents: Sequence[NDArray[np.uint16]],
    bos_id: int,
    num_lanes: int,
    *,
    min_lane_tokens: int = MIN_LANE_TOKENS,
) -> Lanes:
    """Divide documents (ids without BOS) into at most `num_lanes` contiguous, balanced lanes.

    The slowest lane sets the speed, so a lane ends at a document's end only if one lies near its
    fair end; otherwise (a document longer than a lane, say) the document is cut there. A text of
    fewer than num_lanes * min_lane_tokens tokens gets fewer lanes, but at least one.
    """
    stream = _to_stream(documents, bos_id)
    count = max(1, min(num_lanes, len(stream) // max(1, min_lane_tokens)))
    starts = np.flatnonzero(stream == bos_id)
    share = len(stream) / count
    ends = [_snap(round(i * share), starts, share / _SNAP_DIVISOR) for i in range(1, count)]
    bounds = [0, *ends, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    opens = [len(piece) > 0 and piece[0] == bos_id for piece in pieces]
    tokens = [piece[1:] if begins else piece for piece, begins in zip(pieces, opens, strict=True)]
    return Lanes(tokens, tuple(not begins for begins in opens))


def join_lanes(lanes: Lanes, bos_id: int) -> NDArray[np.uint16]:
    """Return the stream of all documents, each behind its BOS: the inverse of `plan_lanes`."""
    bos = np.array([bos_id], np.uint16)
    parts: list[NDArray[np.uint16]] = []
    for lane, continues in zip(lanes.tokens, lanes.continues, strict=True):
        parts += [lane] if continues else [bos, lane]
    return np.concatenate(parts).astype(np.uint16, copy=False)


def _to_stream(documents: Sequence[NDArray[np.uint16]], bos_id: int) -> NDArray[np.uint16]:
    bos = np.array([bos_id], np.uint16)
    parts = [part for document in documents for part in (bos, document)]
    return np.concatenate(parts).astype(np.uint16, copy=False) if parts else bos[:0]


def _snap(ideal: int, starts: NDArray[np.intp], reach: float) -> int:
    after = int(np.searchsorted(starts, ideal))
    near = starts[max(0, after - 1) : after + 1]
    best = int(near[np.argmin(np.abs(near - ideal))])
    return best if abs(best - ideal) <= reach else ideal


def lane_offsets(lanes: Lanes) -> list[int]:
    """Return where each lane's first coded token stands in the joined stream."""
    offsets: list[int] = []
    end = 0
    for length, continues in zip(lanes.lengths, lanes.continues, strict=True):
        offsets.append(end if continues else end + 1)
        end = offsets[-1] + length
    return offsets
