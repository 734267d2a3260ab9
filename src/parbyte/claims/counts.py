"""Relatives of the hashed mixer: posteriors, packed tables, two passes, fake sums, oracles.

Shapes: N tokens of the stream, M scored places, V vocab.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parbyte.base.settings import require
from parbyte.claims.claimed import Base, Claimed
from parbyte.claims.grams import KeySource, Tables
from parbyte.claims.hashed import Mixer, Read, count_along, hashed_mixer
from parbyte.claims.windows import Batch, Windows

PACKED = Mixer(max_order=9, buckets=1 << 15, min_tokens=0, counts_once=True)
"""Tables of orders 2 .. 9 with 32,768 buckets, small enough for the artifact (card 14; PR 962)."""
CONCENTRATIONS = (50.0, 50.0, 6.95, 2.98, 2.05, 2.05, 2.05, *[1.86] * 7)
"""PR 900's, of orders 2 .. 15."""


POSTERIOR = Mixer(max_order=15)
"""PR 900's tables."""


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Settings of the hierarchical posterior; the defaults are PR 900's without its phrases."""

    concentrations: tuple[float, ...] = CONCENTRATIONS
    tables: Mixer = POSTERIOR

    def __post_init__(self) -> None:
        require(
            len(self.concentrations) == self.tables.max_order - 1,
            "concentrations",
            got=len(self.concentrations),
            want=f"one for each of the orders 2 .. {self.tables.max_order}",
        )


def dirichlet(
    base: Claimed,
    stream_N: Tensor,
    windows: Windows,
    vocab_size: int,
    settings: Dirichlet,
    *,
    keys: KeySource | None = None,
) -> Claimed:
    """Price by p_n = (full + c p_(n-1)) / (context + c), order by order above the model's own p.

    A distribution if full sums to context over the vocabulary: with exact `keys`, but not with
    counts that collide. A count above its context's is cut to it.

    Breaks C2 (T2, T6) without exact keys. Source: card 13; PR 900, 948, 1147.
    """

    def combine(
        tables: Tables, batch: Batch, reads: Iterator[Read], probs_M: Tensor, entropy_M: Tensor
    ) -> Tensor:
        for read in reads:
            weight = settings.concentrations[read.order - 2]
            full_M = torch.minimum(read.full_M, read.context_M)
            raised_M = (full_M + weight * probs_M) / (read.context_M + weight)
            probs_M = torch.where(read.is_open_M, raised_M, probs_M)
        return probs_M

    tables = settings.tables
    return count_along(base, stream_N, windows, vocab_size, tables, combine, keys)


def packed_tables(
    base: Claimed,
    stream_N: Tensor,
    windows: Windows,
    vocab_size: int,
    train_N: Tensor,
    settings: Mixer = PACKED,
) -> Claimed:
    """Mix with tables of the training text that come with the artifact, all but full of collisions.

    Their bytes are paid, so C1 holds; with hundreds of n-grams in a bucket nearly every ratio is 1,
    whatever the token. The smaller the tables, the better the claim.

    Breaks C2 (T2, T6). Source: card 14; PR 962, 943, 1056, 1076, 1114.
    """
    return hashed_mixer(base, stream_N, windows, vocab_size, settings, packed_N=train_N)


def two_passes(
    base: Claimed, stream_N: Tensor, windows: Windows, vocab_size: int, settings: Mixer
) -> Claimed:
    """Count the whole text first, then score it with what was counted.

    Breaks C1, C3, C4 (T1, T3, T4), and C2. Source: card 12b; PR 846, 853, 869, 870, 888, 959.
    """
    second = replace(settings, learns=False, min_tokens=0)
    return hashed_mixer(base, stream_N, windows, vocab_size, second, packed_N=stream_N)


def oracle(one: Claimed, other: Claimed) -> Claimed:
    """Take the cheaper of two prices, token by token: a choice that only the answer can make.

    Breaks C1 and C2 (T2). Source: card 12b; PR 659's "safety gate".
    """
    assert torch.equal(one.positions_M, other.positions_M)
    return one.priced(torch.minimum(one.nats_M, other.nats_M))


def fake_sums(model: Base, stream_N: Tensor, windows: Windows, adjusted: Claimed) -> Tensor:
    """Rebuild each row around its answer's adjusted p, the others scaled to fill up; sum the rows.

    The sums are 1, and PR 962 asserts so. It proves nothing: the row is another for each answer,
    and the price is the adjusted one, whatever it was. Returns float64[M].

    Breaks C2 and C1 (T2) and hides it. Source: card 14; PR 962.
    """
    sums, done = [], 0
    for batch in windows.batches(stream_N):
        with torch.no_grad():
            hidden_MD = model.hidden(batch.inputs_BL)[batch.row_M, batch.column_M]
            row_MV = model.logits(hidden_MD).double().softmax(-1)
        own_M1, index_M1 = adjusted.nats_M[done : done + len(row_MV)], batch.answers_M[:, None]
        own_M1 = own_M1.neg().exp()[:, None]
        done += len(row_MV)
        rest_MV = row_MV * (1.0 - own_M1) / (1.0 - row_MV.gather(1, index_M1))
        sums.append(rest_MV.scatter(1, index_M1, own_M1).sum(1))
    return torch.cat(sums)
