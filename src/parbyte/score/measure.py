"""A causal predictor and a text's lanes become a measured ledger: every token is scored once.

Walks in the codec's chunks over the codec's lanes, but asks for a whole chunk's rows at once.
Shapes: B lanes, T positions, V vocab, N tokens of the stream.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.log import Console
from parbyte.base.units import bits_per_byte
from parbyte.predict.predictor import Predictor
from parbyte.score.ledger import DocumentScore, Ledger, ledger_of
from parbyte.text.lanes import Lanes, join_lanes, lane_offsets
from parbyte.text.tokenizer import Tokenizer


def measure(predictor: Predictor, lanes: Lanes, tokenizer: Tokenizer, console: Console) -> Ledger:
    """Score a text and return its ledger, one entry a document (cut ones are made whole).

    A coded BOS costs nats and stands for no byte; a lane's first BOS is implied and costs nothing.
    """
    stream_N = join_lanes(lanes, tokenizer.bos_id)
    bytes_N = tokenizer.byte_counts(stream_N)
    nats_N = np.zeros(len(stream_N), np.float64)
    offsets, longest = lane_offsets(lanes), max(lanes.lengths)
    done, nats_done, bytes_done = 0, 0.0, 0
    watch = Stopwatch()
    predictor.restore()
    with console.progress("score", sum(lanes.lengths)) as progress:
        for start in range(0, longest, predictor.chunk):
            stop = min(start + predictor.chunk, longest)
            tokens_BT = torch.from_numpy(lanes.padded(start, stop, tokenizer.bos_id))
            nats_BT = prices(predictor.log_probs(tokens_BT), tokens_BT)
            predictor.observe(tokens_BT)
            for row_T, offset, length in zip(nats_BT, offsets, lanes.lengths, strict=True):
                count = max(0, min(stop, length) - start)
                place = slice(offset + start, offset + start + count)
                nats_N[place] = row_T[:count]
                done += count
                nats_done += row_T[:count].sum()
                bytes_done += int(bytes_N[place].sum())
            bpb, rate = bits_per_byte(nats_done, bytes_done), done / max(watch.elapsed_s(), 1e-9)
            progress.update(done, {"bpb": f"{bpb:.4f}", "tokens/s": f"{rate:,.0f}"})
    predictor.restore()
    starts = np.flatnonzero(stream_N == tokenizer.bos_id)
    implied = [offset - 1 for offset, cut in zip(offsets, lanes.continues, strict=True) if not cut]
    is_scored_N = np.ones(len(stream_N), np.int64)
    is_scored_N[implied] = 0
    return ledger_of("measured", _by_document(starts, is_scored_N, bytes_N, nats_N))


def prices(rows_BTV: torch.Tensor, tokens_BT: torch.Tensor) -> NDArray[np.float64]:
    """Return what each token costs under its row of log-probabilities, nats float64[B, T]."""
    index_BT1 = tokens_BT.to(rows_BTV.device)[:, :, None]
    return -rows_BTV.gather(2, index_BT1)[:, :, 0].cpu().numpy().astype(np.float64)


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
