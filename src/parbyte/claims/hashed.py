"""N-gram claims over two hash tables that collide independently, asked for the answer alone.

The tables of a batch's scored tokens hold what earlier batches counted, so nothing is learned too
early. But full[answer] holds the counts of all n-grams in its bucket, and so it does for every
token that could have been the answer: the "probabilities" of all tokens sum to far more than 1
(benchmarks/null_test.py measures how far, and what that makes of noise).
Shapes: N tokens of the stream, B windows of a batch, M scored places, V vocab.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.claimed import Claimed
from parbyte.claims.grams import PRIMES, Keys, KeySource, Tables, hashed_keys
from parbyte.claims.windows import Batch, Windows

_SMALLEST_PROB = 1e-12


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """Settings of the hashed mixer; the defaults are PR 1430's."""

    max_order: int = setting(22, low=2, doc="longest n-gram")
    buckets: int = setting(1 << 22, low=1, doc="counters of one table of one order")
    primes: tuple[int, ...] = PRIMES
    min_count: int = setting(2, low=1, doc="smallest count of a context that is used")
    min_tokens: int = setting(5000, low=0, doc="tokens counted before anything is mixed")
    floor: float = setting(0.20, low=0.0, high=1.0, doc="n-gram share where the model is certain")
    span: float = setting(0.55, low=0.0, high=1.0, doc="how much it grows with the entropy")
    slope: float = setting(2.0, doc="of the gate: floor + span sigmoid(slope (H - center))")
    center: float = setting(2.5, unit="nats", doc="entropy in the middle of the gate")
    needs_full: bool = setting(
        False, doc="take an order only if it has seen the answer, as PR 1605 does (full_c)"
    )
    counts_once: bool = setting(
        False, doc="count each token once, not once for every window that holds it"
    )
    learns: bool = setting(True, doc="count each batch once it is scored")

    def keys(self, tokens: Tensor) -> Keys:
        """Yield the keys of all n-grams along the last axis of int64[..., N]."""
        return hashed_keys(tokens, self.max_order, self.buckets, self.primes)

    def share(self, entropy_M: Tensor) -> Tensor:
        """Return the n-gram's share of the mixture."""
        return self.floor + self.span * torch.sigmoid(self.slope * (entropy_M - self.center))


FULL_C = Mixer(max_order=82, floor=0.05, slope=2.5, center=1.0, needs_full=True)
"""PR 1605's form (card 12b); it has 100 multipliers of its own, here PR 1430's go round."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the tables say of a batch's scored places, one order.

    context_M, full_M: counts, float64. is_open_M: the window holds the order's whole context.
    """

    order: int
    context_M: Tensor
    full_M: Tensor
    is_open_M: Tensor


Combine = Callable[[Tables, Batch, Iterator[Read], Tensor, Tensor], Tensor]
"""Tables, batch, reads from order 2 up, the model's p of the answers, its entropy -> p claimed."""


def hashed_mixer(
    base: Claimed,
    stream_N: Tensor,
    windows: Windows,
    vocab_size: int,
    settings: Mixer,
    *,
    keys: KeySource | None = None,
    packed_N: Tensor | None = None,
) -> Claimed:
    """Mix a claim with the ratio full / context of the longest order that has seen the context.

    keys: of `exact_keys`, for the limit without collisions. packed_N: text that is counted, once,
    before anything is scored, as if the tables came with the artifact.

    Breaks C2 (T2, T6); with `needs_full` the order depends on the answer, C1 too.
    Source: card 12; PR 1430, 1379, 779, 1605.
    """

    def combine(
        tables: Tables, batch: Batch, reads: Iterator[Read], probs_M: Tensor, entropy_M: Tensor
    ) -> Tensor:
        counts_M = tables.unigram_V[batch.answers_M].double()
        ratio_M = (counts_M + 0.5) / (tables.tokens_seen + 0.5 * vocab_size)
        for read in reads:
            is_hit_M = read.is_open_M & (read.context_M >= settings.min_count)
            if settings.needs_full:
                is_hit_M &= read.full_M >= 1
            found_M = torch.minimum(read.full_M, read.context_M) / read.context_M.clamp(min=1.0)
            ratio_M = torch.where(is_hit_M, found_M, ratio_M)
        share_M = settings.share(entropy_M)
        return (1.0 - share_M) * probs_M + share_M * ratio_M

    return count_along(base, stream_N, windows, vocab_size, settings, combine, keys, packed_N)


def count_along(
    base: Claimed,
    stream_N: Tensor,
    windows: Windows,
    vocab_size: int,
    settings: Mixer,
    combine: Combine,
    keys: KeySource | None = None,
    packed_N: Tensor | None = None,
) -> Claimed:
    """Go through a claim's batches: price each by what the tables hold, then count its windows."""
    buckets = settings.buckets if keys is None else max(len(stream_N), vocab_size)
    source = keys or (lambda start, stop: settings.keys(stream_N[start:stop]))
    tables, rank, counted, done, nats = None, -1, 0, 0, [base.nats_M[:0]]
    for batch in windows.batches(stream_N):
        if tables is None or batch.rank != rank:
            tables = Tables.empty(vocab_size, settings.max_order, buckets, stream_N.device)
            rank, counted = batch.rank, int(batch.starts_B[0])
            if packed_N is not None:
                _count_text(tables, packed_N, settings)
        part = slice(done, done + len(batch.positions_M))
        nats_M, done = base.nats_M[part], part.stop
        if tables.tokens_seen >= settings.min_tokens:
            reads = _read(tables, source, batch)
            probs_M = nats_M.neg().exp().clamp(min=_SMALLEST_PROB)
            mixed_M = combine(tables, batch, reads, probs_M, base.entropy_M[part])
            nats_M = -mixed_M.clamp(min=_SMALLEST_PROB).log()
        nats.append(nats_M)
        if not settings.learns:
            continue
        if settings.counts_once:
            counted = _count_new(tables, source, stream_N, counted, batch)
        else:
            _count_windows(tables, stream_N, batch, settings)
    return base.priced(torch.cat(nats))


def _read(tables: Tables, keys: KeySource, batch: Batch) -> Iterator[Read]:
    """Read the counts of the scored places, order by order; position p ends at the answer p."""
    first, last = int(batch.positions_M.min()), int(batch.positions_M.max())
    start = max(0, first - len(tables.context))
    for order, context_P, full_P in keys(start, last + 1):
        is_open_M = batch.column_M >= order - 2
        begin_M = (batch.positions_M - start - order + 1).clamp(min=0)
        context_M, full_M = tables.read(order, context_P[begin_M], full_P[begin_M])
        yield Read(order=order, context_M=context_M, full_M=full_M, is_open_M=is_open_M)


def _count_text(tables: Tables, text_N: Tensor, settings: Mixer) -> None:
    for order, context, full in settings.keys(text_N):
        tables.count(order, context, full)
    tables.count_tokens(text_N)


def _count_new(
    tables: Tables, keys: KeySource, stream_N: Tensor, counted: int, batch: Batch
) -> int:
    """Count the n-grams that end in the batch's inputs and were not counted; return the end."""
    stop = int(batch.positions_M.max())
    start = max(0, counted - len(tables.context))
    for order, context_P, full_P in keys(start, stop):
        fresh = max(0, counted - start - order + 1)
        tables.count(order, context_P[fresh:], full_P[fresh:])
    tables.count_tokens(stream_N[counted:stop])
    return max(counted, stop)


def _count_windows(tables: Tables, stream_N: Tensor, batch: Batch, settings: Mixer) -> None:
    """Count the batch's windows, joined to one text: a token as often as windows hold it.

    Where all windows are full, the n-grams inside them are those of the stretch they cover, each as
    often as windows hold it; those over a join of two windows are counted one by one.
    """
    inputs_BL = batch.inputs_BL
    window, reach = inputs_BL.shape[1], settings.max_order - 1
    if window < settings.max_order or bool((batch.lengths_B < window).any()):
        _count_text(tables, inputs_BL.reshape(-1), settings)
        return
    starts_B = batch.starts_B
    first = int(starts_B[0])
    covered_N = stream_N[first : int(starts_B[-1]) + window]
    joins = torch.cat([inputs_BL[:-1, window - reach :], inputs_BL[1:, :reach]], dim=1)
    over_joins = settings.keys(joins)
    for order, context_P, full_P in settings.keys(covered_N):
        edge_P = covered_N.new_zeros(len(covered_N) + 1, dtype=torch.float32)
        edge_P[starts_B - first] += 1.0
        edge_P[starts_B - first + window - order + 1] -= 1.0
        tables.count(order, context_P, full_P, edge_P.cumsum(0)[: len(context_P)])
        _, context, full = next(over_joins)
        over = slice(reach - order + 1, reach)
        tables.count(order, context[:, over], full[:, over])
    tables.count_tokens(inputs_BL)
