"""A mixture's rows are those of its definition: dictionaries, float64, autograd for the gradient.

The reference counts everything anew at every position, from the text alone.
Shapes: B lanes, T positions, V vocab.
"""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import GivenRows, Uniform

from parbyte.base.errors import ResourceError
from parbyte.predict.build import build_row_stage
from parbyte.predict.expert_config import (
    SETS,
    MatchExpert,
    MixConfig,
    NgramConfig,
    NgramExpert,
    RecentExpert,
    TiltConfig,
)
from parbyte.predict.mix import MixPredictor

BOS, VOCAB, LANES, LENGTH = 0, 7, 2, 40
SMALL = 1 << 20
NUM_GROUPS, NUM_ENTROPIES, NUM_LENGTHS = 8, 12, 23
NUM_ROWS = {"order": NUM_GROUPS, "entropy": NUM_ENTROPIES, "match": NUM_LENGTHS, "position": 12}
Context = tuple[int, ...]
Row = NDArray[np.float64]


def some_rows(vocab: int = VOCAB, length: int = LENGTH, lanes: int = LANES) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return (2 * torch.randn(lanes, length, vocab, generator=generator)).log_softmax(-1)


def some_text(vocab: int = VOCAB, length: int = LENGTH, lanes: int = LANES) -> Tensor:
    """Return lanes that repeat themselves, with a document's end; the last lane ends early."""
    rng = np.random.default_rng(3)
    text = np.tile(rng.integers(1, vocab, 9), (lanes, length // 9 + 1))[:, :length]
    noise = rng.random(text.shape) < 0.2
    text[noise] = rng.integers(1, vocab, int(noise.sum()))
    text[0, length // 2] = BOS
    text[-1, length - 6 :] = BOS
    return torch.from_numpy(text)


def rows_of(config: object, rows_BTV: Tensor, tokens_BT: Tensor, chunk: int = 7) -> Tensor:
    predictor = build_row_stage(config, GivenRows(rows_BTV, chunk), BOS)
    predictor.restore()
    parts = []
    for part_BT in tokens_BT.split(chunk, dim=1):
        parts.append(predictor.log_probs(part_BT))
        predictor.observe(part_BT)
    return torch.cat(parts, dim=1)


class Level:
    """What a dictionary knows of one context, from all lanes before time t."""

    def __init__(self, past: list[list[int]], context: Context, skip: int) -> None:
        order = len(context)
        self.counts: Counter[int] = Counter()
        longer: dict[int, set[int | None]] = defaultdict(set)
        self.newest: dict[int, int] = {}
        for lane in past:
            for t in range(1, len(lane)):
                is_padding = lane[t] == BOS and lane[t - 1] == BOS
                if is_padding or context_of(lane[:t], order, skip) != context:
                    continue
                self.counts[lane[t]] += 1
                self.newest[lane[t]] = max(t, self.newest.get(lane[t], 0))
                older = context_of(lane[:t], order + 1, skip)
                longer[lane[t]].add(older[0] if older else None)
        self.kinds = {v: len(found) for v, found in longer.items()}


def context_of(before: list[int], order: int, skip: int) -> Context | None:
    end = len(before) - skip
    context = tuple(before[max(0, end - order) : end])
    return None if end < order or BOS in context[1:] else context


def chain_levels(past: list[list[int]], lane: list[int], expert: NgramExpert) -> list[Level]:
    """Return the levels of orders 0, 1, ... as far as the context is known."""
    levels = []
    for order in range(expert.order + 1):
        context = context_of(lane, order, expert.skip)
        level = Level(past, context, expert.skip) if context is not None else None
        if level is None or not level.counts:
            break
        levels.append(level)
    return levels


def step_down(
    expert: NgramExpert, level: Level, is_longest: bool
) -> tuple[dict[int, float], float]:
    """Return a(v) and c of one level."""
    counts, kinds = level.counts, len(level.counts)
    if expert.method == "dirichlet":
        return {v: float(n) for v, n in counts.items()}, expert.concentration
    if expert.method == "witten-bell":
        return {v: float(n) for v, n in counts.items()}, float(kinds)
    discount = 0.5 if expert.method == "ppmd" else expert.discount
    if expert.method == "kneser-ney" and not is_longest and sum(counts.values()) > 1:
        return {v: n - discount for v, n in level.kinds.items()}, discount * kinds
    return {v: n - discount for v, n in counts.items()}, discount * kinds


def group(order: int) -> int:
    return order if order <= 4 else 5 if order <= 6 else 6 if order <= 10 else 7


def state_of(level: Level, token: int) -> int:
    count, rest = level.counts[token], sum(level.counts.values()) - level.counts[token]
    size = sum(count > limit for limit in (1, 2, 4, 8))
    others = rest if rest <= 1 else 2 + sum(rest > limit for limit in (3, 8, 30))
    is_newest = level.newest[token] == max(level.newest.values())
    return (size * 6 + others) * 2 + is_newest


class Reference:
    """The definition: what each expert says, and the mixture of it, learned by autograd."""

    def __init__(self, config: MixConfig) -> None:
        self.config = config
        self.ngrams = [e for e in config.experts if isinstance(e, NgramExpert)]
        self.match = next((e for e in config.experts if isinstance(e, MatchExpert)), None)
        self.recent = next((e for e in config.experts if isinstance(e, RecentExpert)), None)
        self.num_sources = len(self.ngrams) * NUM_GROUPS + 1
        rows = 1 + sum(NUM_ROWS[name] for name in config.sets)
        self.weights = torch.zeros(rows, self.num_sources + 2, dtype=torch.float64)
        self.weights[0] = config.start_weight
        self.weights[0, 0] = 1.0
        self.bonus = torch.zeros(self.num_sources * 60, dtype=torch.float64)
        self.squares = [torch.ones_like(self.weights), torch.ones_like(self.bonus)]
        self.hits, self.tries = Counter[int](), Counter[int]()
        self.fading = np.zeros(VOCAB)
        kinds = [True, self.match is not None, self.recent is not None]
        share = 1.0 if config.mode == "gated" else config.start_weight
        first = [1 - share, *(share * there / sum(kinds) for there in kinds)]
        self.lambdas = np.tile(first, (rows, 1))

    def look(self, past: list[list[int]], lane: list[int], row_V: Row) -> None:
        """Collect the inputs, the states and the experts' distributions at one position."""
        prob_V = np.exp(row_V)
        self.inputs_IV = np.zeros((self.num_sources + 2, VOCAB))
        self.inputs_IV[0] = row_V
        self.states: list[dict[int, int]] = [{} for _ in range(self.num_sources)]
        self.expert_rows = [prob_V, prob_V, prob_V, prob_V]
        self.length, self.order = 0, 0
        chain_V = prob_V
        for trie, expert in enumerate(self.ngrams):
            levels = chain_levels(past, lane, expert)
            for order in range(expert.lowest, len(levels)):
                weights, left = step_down(expert, levels[order], order == expert.order)
                a_V = np.array([weights.get(v, 0.0) for v in range(VOCAB)])
                source = trie * NUM_GROUPS + group(order)
                self.inputs_IV[1 + source] += np.log(1 + a_V / (left * chain_V))
                chain_V = (a_V + left * chain_V) / (a_V.sum() + left)
                for v in weights:
                    self.states[source][v] = source * 60 + state_of(levels[order], v)
            if trie == 0:
                self.order = max(len(levels) - 1, 0)
                if self.match and len(levels) > self.match.min_length:
                    self.look_at_match(levels[-1], self.order, prob_V)
        self.expert_rows[1] = chain_V
        if self.recent:
            weight = self.recent.concentration
            self.inputs_IV[-1] = np.log(1 + self.fading / (weight * prob_V))
            posterior_V = (self.fading + weight * prob_V) / (self.fading.sum() + weight)
            self.expert_rows[3] = posterior_V
        entropy = -(prob_V * row_V).sum()
        self.gate = 0.20 + 0.55 / (1 + math.exp(-2 * (entropy - 2.5)))
        age = lane[::-1].index(BOS)
        rows = {
            "order": group(self.order),
            "entropy": min(int(entropy * 2), NUM_ENTROPIES - 1),
            "match": self.length,
            "position": min(math.ceil(math.log2(age + 1)), 11),
        }
        picked, start = [0], 1
        for name in self.config.sets:
            picked.append(start + rows[name])
            start += NUM_ROWS[name]
        self.picked = torch.tensor(picked)

    def look_at_match(self, level: Level, length: int, prob_V: Row) -> None:
        newest = max(level.newest.values())
        token = min(v for v, t in level.newest.items() if t == newest)
        hit = (self.hits[length] + 0.5) / (self.tries[length] + 1)
        self.inputs_IV[-2, token] = math.log(1 + hit / ((1 - hit) * prob_V[token]))
        self.states[-1][token] = (self.num_sources - 1) * 60 + length
        self.length, self.match_token = length, token
        self.expert_rows[2] = (1 - hit) * prob_V + hit * (np.arange(VOCAB) == token)

    def row(self, weights: Tensor, bonus: Tensor) -> Tensor:
        """Return log q, differentiable in weights and bonus."""
        logits_V = weights[self.picked].sum(0) @ torch.from_numpy(self.inputs_IV)
        extra: list[Tensor] = [torch.zeros((), dtype=torch.float64)] * VOCAB
        for found in self.states:
            for v, state in found.items():
                extra[v] = extra[v] + bonus[state]
        return (logits_V + torch.stack(extra)).log_softmax(0)

    def linear_row(self) -> Row:
        lambdas = self.lambdas[self.picked.numpy()].mean(0)
        if self.config.mode == "gated":
            lambdas = np.array([1 - self.gate, *(self.gate * self.lambdas[0, 1:])])
        return np.log(lambdas @ np.stack(self.expert_rows))


def reference_rows(config: MixConfig, rows_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """Return float64[B, T, V] by the definition."""
    lanes = [[BOS] for _ in tokens_BT]
    mind, out = Reference(config), torch.zeros(rows_BTV.shape, dtype=torch.float64)
    for t in range(tokens_BT.shape[1]):
        past = [list(lane) for lane in lanes]
        slopes = [torch.zeros_like(mind.weights), torch.zeros_like(mind.bonus)]
        moves, uses = np.zeros_like(mind.lambdas), np.zeros(len(mind.lambdas))
        verdicts: list[tuple[int, bool]] = []
        learned: list[int] = []
        for b, lane in enumerate(lanes):
            token = int(tokens_BT[b, t])
            mind.look(past, past[b], rows_BTV[b, t].double().numpy())
            parameters = [mind.weights.clone(), mind.bonus.clone()]
            log_q_V = mind.row(*(p.requires_grad_() for p in parameters))
            is_geometric = config.mode == "geometric"
            out[b, t] = log_q_V.detach() if is_geometric else torch.from_numpy(mind.linear_row())
            is_padding = token == BOS and lane[-1] == BOS
            lane.append(token)
            if is_padding:
                continue
            log_q_V[token].backward()
            for slope, parameter in zip(slopes, parameters, strict=True):
                slope += 0.0 if parameter.grad is None else parameter.grad
            for row in mind.picked.tolist():
                share = mind.lambdas[row] * np.array([q[token] for q in mind.expert_rows])
                moves[row] += share / share.sum()
                uses[row] += 1
            learned.append(token)
            if mind.length:
                verdicts.append((mind.length, token == mind.match_token))
        if mind.recent:
            mind.fading *= 1 - 1 / mind.recent.span
        for token in learned:
            mind.fading[token] += 1
        for length, is_hit in verdicts:
            mind.tries[length] += 1
            mind.hits[length] += is_hit
        rates = (config.rate, config.bonus_rate)
        for parameter, slope, square, rate in zip(
            (mind.weights, mind.bonus), slopes, mind.squares, rates, strict=True
        ):
            square += slope**2
            parameter += rate * slope / square.sqrt()
        if config.mode == "linear":
            pace = config.rate * uses / (1 + config.rate * uses)
            means = moves / np.maximum(uses, 1)[:, None]
            mind.lambdas += pace[:, None] * (means - mind.lambdas)
    return out


ALL = (NgramExpert(), MatchExpert(), RecentExpert(span=20.0))
CASES = {
    "all experts": MixConfig(experts=ALL, rate=0.1, bonus_rate=0.1),
    "two tries": MixConfig(experts=(NgramExpert(order=3), NgramExpert(order=2, skip=1)), rate=0.1),
    "order 0": MixConfig(experts=(NgramExpert(lowest=0, order=7), MatchExpert(min_length=2))),
    "witten-bell": MixConfig(experts=(NgramExpert(method="witten-bell"),)),
    "document position": MixConfig(
        experts=ALL, sets=("position", "order"), rate=0.1, bonus_rate=0.1
    ),
    "no sets": MixConfig(experts=ALL, sets=(), rate=0.1),
    "linear": MixConfig(experts=ALL, mode="linear", rate=0.1),
    "linear, all sets": MixConfig(experts=ALL, mode="linear", sets=SETS, rate=0.1),
    "linear, n-grams alone": MixConfig(experts=ALL[:1], mode="linear", rate=0.1),
    "gated": MixConfig(experts=ALL, mode="gated"),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_the_definition(name: str) -> None:
    config, rows_BTV, tokens_BT = CASES[name], some_rows(), some_text()
    found_BTV = rows_of(config, rows_BTV, tokens_BT).double()
    torch.testing.assert_close(
        found_BTV, reference_rows(config, rows_BTV, tokens_BT), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("method", ["dirichlet", "witten-bell", "ppmd", "kneser-ney"])
def test_the_posterior_is_its_formula(method: str) -> None:
    rows_BTV, tokens_BT = some_rows(), some_text()
    config = NgramConfig(method=method, order=6, concentration=2.0, discount=0.6, memory=SMALL)
    found_BTV = rows_of(config, rows_BTV, tokens_BT).double()
    expert = NgramExpert(method=method, order=6, concentration=2.0, discount=0.6)
    mind = Reference(MixConfig(experts=(expert,)))
    lanes = np.concatenate([np.full((LANES, 1), BOS), tokens_BT.numpy()], axis=1).tolist()
    for t in range(LENGTH):
        past = [lane[: t + 1] for lane in lanes]
        for b in range(LANES):
            mind.look(past, past[b], rows_BTV[b, t].double().numpy())
            expected_V = torch.from_numpy(np.log(mind.expert_rows[1]))
            torch.testing.assert_close(found_BTV[b, t], expected_V, atol=2e-5, rtol=0)


def test_a_tilt_raises_the_sure_follower_of_the_longest_context() -> None:
    rows_BTV, tokens_BT = some_rows(), some_text()
    config = TiltConfig(order=5, lowest=1, beta=1.5, confidence=0.6, min_count=2, memory=SMALL)
    found_BTV = rows_of(config, rows_BTV, tokens_BT).double()
    lanes = np.concatenate([np.full((LANES, 1), BOS), tokens_BT.numpy()], axis=1).tolist()
    num_hints = 0
    for t in range(LENGTH):
        past = [lane[: t + 1] for lane in lanes]
        for b in range(LANES):
            expected_V = rows_BTV[b, t].double()
            levels = chain_levels(past, past[b], NgramExpert(order=5))
            for level in reversed(levels[1:]):
                best = max(level.counts.values())
                total = sum(level.counts.values())
                if total >= 2 and best >= 0.6 * total:
                    hint = min(v for v, n in level.counts.items() if n == best)
                    bonus_V = torch.zeros(VOCAB, dtype=torch.float64)
                    bonus_V[hint] = 1.5 * best / total
                    expected_V = (expected_V + bonus_V).log_softmax(0)
                    num_hints += 1
                    break
            torch.testing.assert_close(found_BTV[b, t], expected_V, atol=2e-5, rtol=0)
    assert num_hints > LENGTH // 2


@pytest.mark.parametrize("vocab", [256, 1024, 8192])
@pytest.mark.parametrize("mode", ["geometric", "linear", "gated"])
def test_rows_sum_to_one(vocab: int, mode: str) -> None:
    rows_BTV = some_rows(vocab, 60, 1) * 3
    config = MixConfig(mode=mode, memory=SMALL)
    found_BTV = rows_of(config, rows_BTV.log_softmax(-1), some_text(vocab, 60, 1), 64)
    sums = found_BTV.double().exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


def test_impossible_tokens_do_no_harm() -> None:
    rows_BTV = some_rows()
    rows_BTV[:, :, 3] = -200.0
    found_BTV = rows_of(MixConfig(memory=SMALL), rows_BTV, some_text())
    assert bool(found_BTV.isfinite().all())


def test_memory_is_kept_and_what_is_new_is_learned() -> None:
    memory, lanes, vocab = 1 << 17, 2, 64
    rng = np.random.default_rng(0)
    tokens_BT = torch.from_numpy(rng.integers(1, vocab, (lanes, 12_000)))
    tokens_BT[:, -300:] = tokens_BT[:, -600:-300]
    predictor = MixPredictor(Uniform(vocab, lanes, 200), MixConfig(memory=memory), BOS)
    nats = []
    for part_BT in tokens_BT.split(200, dim=1):
        nats.append(-float(predictor.log_probs(part_BT).gather(2, part_BT[..., None]).mean()))
        predictor.observe(part_BT)
        assert predictor.count_bytes() <= memory
    assert nats[-3] > 4.0
    assert nats[-1] < 3.0


def test_a_memory_too_small_for_the_lanes_is_named() -> None:
    predictor = MixPredictor(Uniform(8, 4, 20_000), MixConfig(memory=1 << 16), BOS)
    with pytest.raises(ResourceError, match="memory"):
        predictor.log_probs(torch.ones((4, 1), dtype=torch.int64))


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("length", [31, 32])
def test_a_prior_counts_like_text_that_was_scored_before(lanes: int, length: int) -> None:
    rows_BTV, tokens_BT = some_rows(lanes=lanes), some_text(lanes=lanes)
    prior_N = np.random.default_rng(1).integers(1, VOCAB, length)
    share = -(-length // lanes)
    before_BT = np.full((lanes, share + 1), BOS)
    before_BT[0, :share], before_BT[-1, : length - share * (lanes - 1)] = (
        prior_N[:share],
        prior_N[share * (lanes - 1) :],
    )
    config = NgramConfig(order=5, memory=SMALL)
    predictor = MixPredictor(
        GivenRows(rows_BTV, LENGTH), config, BOS, prior_N=prior_N.astype(np.uint16)
    )
    found_BTV = predictor.log_probs(tokens_BT)
    before_rows_BTV = some_rows(length=before_BT.shape[1], lanes=lanes)
    longer_BTV = torch.cat([before_rows_BTV, rows_BTV], dim=1)
    longer_BT = torch.cat([torch.from_numpy(before_BT), tokens_BT], dim=1)
    wanted_BTV = rows_of(config, longer_BTV, longer_BT)[:, before_BT.shape[1] :]
    assert torch.equal(found_BTV, wanted_BTV)
    assert not torch.equal(found_BTV, rows_of(config, rows_BTV, tokens_BT))
    predictor.restore()
    assert torch.equal(predictor.log_probs(tokens_BT), found_BTV)


def test_a_prior_too_long_for_the_memory_is_refused() -> None:
    prior_N = np.random.default_rng(0).integers(1, 64, 20_000).astype(np.uint16)
    predictor = MixPredictor(Uniform(64, 1, 8), MixConfig(memory=1 << 18), BOS, prior_N)
    with pytest.raises(ResourceError, match="prior_bytes"):
        predictor.log_probs(torch.ones((1, 1), dtype=torch.int64))
