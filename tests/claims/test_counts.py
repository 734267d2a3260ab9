"""Posteriors, packed tables, two passes, oracles, fake sums: against token-by-token references."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from parbyte.base.errors import RecipeError
from parbyte.claims.claimed import Claimed
from parbyte.claims.counts import Dirichlet, dirichlet, fake_sums, oracle, packed_tables, two_passes
from parbyte.claims.grams import PRIMES
from parbyte.claims.hashed import Mixer, hashed_mixer
from parbyte.claims.windows import Windows, sliding

VOCAB = 11
WINDOWS = Windows(window=16, stride=4, batch=5)
TABLES = Mixer(max_order=4, buckets=32, min_tokens=0, counts_once=True)


@pytest.fixture
def base(net: nn.Module, stream: Tensor) -> Claimed:
    return sliding(net, stream, WINDOWS)


def bucket(gram: list[int]) -> int:
    hashed = 0
    for place, token in enumerate(gram):
        hashed ^= token * PRIMES[place]
    return hashed % 32


def counted(text: list[int]) -> tuple[dict, dict]:
    context: dict = defaultdict(int)
    full: dict = defaultdict(int)
    for end in range(len(text)):
        for order in range(2, 5):
            if end >= order - 1:
                gram = text[end - order + 1 : end + 1]
                context[order, bucket(gram[:-1])] += 1
                full[order, bucket(gram)] += 1
    return context, full


def test_the_posterior_equals_its_recursion(base: Claimed, stream: Tensor) -> None:
    settings = Dirichlet(concentrations=(5.0, 2.0, 1.5), tables=TABLES)
    found = dirichlet(base, stream, WINDOWS, VOCAB, settings)
    text, done, stop, expected = stream.tolist(), 0, 0, []
    for batch in WINDOWS.batches(stream):
        context, full = counted(text[:stop])
        stop = max(stop, int(batch.positions_M.max()))
        for position, column in zip(batch.positions_M, batch.column_M, strict=True):
            p, place = float(base.nats_M[done].neg().exp()), int(position)
            done += 1
            for order, weight in zip((2, 3, 4), settings.concentrations, strict=True):
                if column < order - 2:
                    continue
                gram = text[place - order + 1 : place + 1]
                seen = context[order, bucket(gram[:-1])]
                p = (min(full[order, bucket(gram)], seen) + weight * p) / (seen + weight)
            expected.append(p)
    assert found.nats_M.neg().exp().tolist() == pytest.approx(expected, abs=1e-9)


def test_a_posterior_needs_one_concentration_for_each_order() -> None:
    with pytest.raises(RecipeError, match="concentrations"):
        Dirichlet(concentrations=(1.0,), tables=TABLES)


def test_packed_tables_price_a_token_by_the_training_text(base: Claimed, stream: Tensor) -> None:
    train = torch.randint(0, VOCAB, (500,), generator=torch.Generator().manual_seed(3))
    found = packed_tables(base, stream, WINDOWS, VOCAB, train, replace(TABLES, learns=False))
    context, full = counted(train.tolist())
    for place in (20, 50):
        gram = stream[place - 3 : place + 1].tolist()
        assert context[4, bucket(gram[:-1])] >= 2
        ratio = min(full[4, bucket(gram)], context[4, bucket(gram[:-1])])
        ratio /= context[4, bucket(gram[:-1])]
        at = found.positions_M.tolist().index(place)
        share = float(TABLES.share(base.entropy_M[at]))
        expected = (1 - share) * float(base.nats_M[at].neg().exp()) + share * ratio
        assert float(found.nats_M[at].neg().exp()) == pytest.approx(expected, abs=1e-9)


def test_the_second_pass_knows_the_whole_text(base: Claimed, stream: Tensor) -> None:
    settings = Mixer(max_order=8, counts_once=True, min_tokens=0)
    first = hashed_mixer(base, stream, WINDOWS, VOCAB, settings)
    second = two_passes(base, stream, WINDOWS, VOCAB, settings)
    frozen = replace(settings, learns=False)
    packed = packed_tables(base, stream, WINDOWS, VOCAB, stream, frozen)
    assert torch.equal(second.nats_M, packed.nats_M)
    assert second.nats_M.sum() < 0.8 * first.nats_M.sum()


def test_the_oracle_takes_the_cheaper_price(base: Claimed) -> None:
    other = base.priced(base.nats_M.flip(0))
    found = oracle(base, other)
    pairs = zip(base.nats_M.tolist(), other.nats_M.tolist(), strict=True)
    assert found.nats_M.tolist() == [min(pair) for pair in pairs]


def test_fake_sums_are_one_whatever_the_price(
    net: nn.Module, base: Claimed, stream: Tensor
) -> None:
    for adjusted in (base, base.priced(base.nats_M * 0.01), base.priced(base.nats_M * 3)):
        sums = fake_sums(net, stream, WINDOWS, adjusted)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-12)
