"""N-gram claims against slow dictionaries, written from their description token by token."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from parbyte.claims.claimed import Claimed
from parbyte.claims.grams import PRIMES, Tables, exact_keys, hashed_keys
from parbyte.claims.hashed import FULL_C, Mixer, hashed_mixer
from parbyte.claims.windows import Windows, sliding

VOCAB = 11
WINDOWS = Windows(window=16, stride=4, batch=5, ranks=2)
SMALL = Mixer(max_order=5, buckets=64, min_tokens=20)
Gram = tuple[int, ...]


def key_of(tokens: Sequence[int], buckets: int) -> int:
    hashed = 0
    for place, token in enumerate(tokens):
        hashed ^= token * PRIMES[place % len(PRIMES)]
    return hashed % buckets


class Book:
    """Counts by bucket of contexts and of contexts with their token, one dictionary an order."""

    def __init__(self, m: Mixer, exact: bool = False) -> None:
        self.m, self.exact, self.seen = m, exact, 0
        self.context: dict = defaultdict(int)
        self.full: dict = defaultdict(int)
        self.single: dict = defaultdict(int)

    def key(self, gram: Gram) -> object:
        return gram if self.exact else key_of(gram, self.m.buckets)

    def count(self, text: list[int], fresh: int = 0) -> None:
        for end in range(fresh, len(text)):
            self.single[text[end]] += 1
            self.seen += 1
            for order in range(2, self.m.max_order + 1):
                if end - order + 1 >= 0:
                    gram = tuple(text[end - order + 1 : end + 1])
                    self.context[order, self.key(gram[:-1])] += 1
                    self.full[order, self.key(gram)] += 1

    def ratio(self, past: list[int], answer: int) -> float:
        for order in range(self.m.max_order, 1, -1):
            if len(past) < order - 1:
                continue
            gram = (*past[len(past) - order + 1 :], answer)
            context = self.context[order, self.key(gram[:-1])]
            full = self.full[order, self.key(gram)]
            if context >= self.m.min_count and (full >= 1 or not self.m.needs_full):
                return min(full, context) / context
        return (self.single[answer] + 0.5) / (self.seen + 0.5 * VOCAB)


def reference(
    base: Claimed, stream: Tensor, m: Mixer, windows: Windows = WINDOWS, exact: bool = False
) -> list[float]:
    text, out, done, rank = stream.tolist(), [], 0, -1
    book, counted = Book(m, exact), 0
    for batch in windows.batches(stream):
        if batch.rank != rank:
            rank, book, counted = batch.rank, Book(m, exact), int(batch.starts_B[0])
        enough = book.seen >= m.min_tokens
        for row, column in zip(batch.row_M.tolist(), batch.column_M.tolist(), strict=True):
            nats, entropy = float(base.nats_M[done]), float(base.entropy_M[done])
            done += 1
            if enough:
                start = int(batch.starts_B[row])
                answer = text[start + column + 1]
                ratio = book.ratio(text[start : start + column + 1], answer)
                gate = m.floor + m.span / (1 + math.exp(-m.slope * (entropy - m.center)))
                nats = -math.log(max((1 - gate) * math.exp(-nats) + gate * ratio, 1e-12))
            out.append(nats)
        if m.counts_once:
            stop = int(batch.positions_M.max())
            book.count(
                text[max(0, counted - m.max_order + 1) : stop],
                counted - max(0, counted - m.max_order + 1),
            )
            counted = max(counted, stop)
        else:
            book.count(batch.inputs_BL.flatten().tolist())
    return out


@pytest.fixture
def base(net: nn.Module, stream: Tensor) -> Claimed:
    return sliding(net, stream, WINDOWS)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, counts_once=True),
        replace(SMALL, max_order=13, buckets=1 << 22),
        replace(FULL_C, max_order=7, buckets=50, min_tokens=0, counts_once=True),
        replace(FULL_C, max_order=22, min_tokens=0),
    ],
    ids=["windows", "once", "many buckets", "full_c", "beyond the window"],
)
def test_the_mixer_equals_its_description(base: Claimed, stream: Tensor, settings: Mixer) -> None:
    found = hashed_mixer(base, stream, WINDOWS, VOCAB, settings)
    expected = reference(base, stream, settings)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(found.positions_M, base.positions_M)


def test_exact_keys_are_the_limit_without_collisions(base: Claimed, stream: Tensor) -> None:
    settings = replace(SMALL, counts_once=True, buckets=1)
    keys = exact_keys(stream, settings.max_order)
    found = hashed_mixer(base, stream, WINDOWS, VOCAB, settings, keys=keys)
    expected = reference(base, stream, settings, exact=True)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=1e-6)


def test_updating_and_asking_use_the_same_key_at_every_order() -> None:
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 1024, (60,), generator=generator)
    for order, context, full in hashed_keys(tokens, 22, 1 << 22, PRIMES):
        for place in (0, 7, len(full) - 1):
            gram = tokens[place : place + order].tolist()
            assert int(context[place]) == key_of(gram[:-1], 1 << 22)
            assert int(full[place]) == key_of(gram, 1 << 22)


def test_orders_above_eleven_cannot_tell_tokens_ten_apart() -> None:
    one = torch.tensor([5, *range(100, 109), 7, 3])
    two = torch.tensor([7, *range(100, 109), 5, 3])
    keys = [list(hashed_keys(t, 12, 1 << 22, PRIMES))[-1] for t in (one, two)]
    assert keys[0][0] == 12 and torch.equal(keys[0][1], keys[1][1])


def test_packed_tables_are_counted_before_anything_is_scored(base: Claimed, stream: Tensor) -> None:
    settings = replace(SMALL, min_tokens=0, counts_once=True)
    packed = stream.flip(0)
    windows = replace(WINDOWS, ranks=1)
    found = hashed_mixer(base, stream, windows, VOCAB, settings, packed_N=packed)
    book = Book(settings)
    book.count(packed.tolist())
    ratio = book.ratio([int(stream[0])], int(stream[1]))
    gate = float(settings.share(base.entropy_M[:1]))
    expected = -math.log((1 - gate) * math.exp(-float(base.nats_M[0])) + gate * ratio)
    assert float(found.nats_M[0]) == pytest.approx(expected, abs=1e-9)


def test_collisions_make_the_probabilities_of_all_tokens_sum_to_far_more_than_one() -> None:
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(0, VOCAB, (4000,), generator=generator)
    tables = Tables.empty(VOCAB, 6, 256, torch.device("cpu"))
    for order, context, full in hashed_keys(text, 6, 256, PRIMES):
        tables.count(order, context, full)
    gram = text[100:105]
    total = 0.0
    for token in range(VOCAB):
        asked = torch.cat([gram, torch.tensor([token])])
        *_, (order, context, full) = hashed_keys(asked, 6, 256, PRIMES)
        counts = tables.read(order, context, full)
        total += float(torch.minimum(*counts) / counts[0])
    assert order == 6 and total > 5.0
