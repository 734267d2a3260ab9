"""A causal predictor and a text's lanes become a measured ledger: every token is scored once.

It is the codec's law over the codec's lanes, but many rows at once (score.prices).
Shapes: N tokens of the stream.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.log import Console
from parbyte.base.units import bits_per_byte
from parbyte.predict.predictor import Predictor
from parbyte.score.ledger import DocumentScore, Ledger, ledger_of
from parbyte.score.prices import lane_prices
from parbyte.text.lanes import Lanes, join_lanes, lane_offsets
from parbyte.text.tokenizer import Tokenizer


def measure(predictor: Predictor, lanes: Lanes, tokenizer: Tokenizer, console: Console) -> Ledger:
    """Score a text and return its ledger, one entry a document (cut ones are made whole).

    A coded BOS costs nats and stands for no byte; a lane's first BOS is implied and costs nothing.
    """
    stream_N = join_lanes(lanes, tokenizer.bos_id)
    bytes_N = tokenizer.byte_counts(stream_N)
    nats_N = np.zeros(len(stream_N), np.float64)
    done, nats_done, bytes_done = 0, 0.0, 0
    watch = Stopwatch()
    with console.progress("score", sum(lanes.lengths)) as progress:
        for places, nats in lane_prices(predictor, lanes, tokenizer.bos_id):
            nats_N[places] = nats
            done += len(places)
            nats_done += float(nats.sum(dtype=np.float64))
            bytes_done += int(bytes_N[places].sum())
            bpb, rate = bits_per_byte(nats_done, bytes_done), done / max(watch.elapsed_s(), 1e-9)
            progress.update(done, {"bpb": f"{bpb:.4f}", "tokens/s": f"{rate:,.0f}"})
    starts = np.flatnonzero(stream_N == tokenizer.bos_id)
    offsets = lane_offsets(lanes)
    implied = [offset - 1 for offset, cut in zip(offsets, lanes.continues, strict=True) if not cut]
    is_scored_N = np.ones(len(stream_N), np.int64)
    is_scored_N[implied] = 0
    return ledger_of("measured", _by_document(starts, is_scored_N, bytes_N, nats_N))


def _by_document(
    starts: NDArray[np.intp],
    is_scored_N: NDArray[np.int64],
    bytes_N: NDArray[np.int64],
    nats_N: NDArray[np.float64],
) -> list[DocumentScore]:
    if not len(starts):
        return []
    sums = [np.add.reduceat(x, starts) for x in (is_scored_N, bytes_N, nats_N)]
    return [DocumentScore(int(t), int(b), float(n)) for t, b, n in zip(*sums, strict=True)]
