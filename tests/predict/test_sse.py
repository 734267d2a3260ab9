"""The last stage's rows are those of its definition in float64, and always sum to one.

Shapes: B lanes, T positions, V vocab, K ranks.
"""

import math

import numpy as np
import torch
from torch import Tensor

from parbyte.predict.expert_config import SseConfig
from parbyte.predict.predictor import Predictor
from parbyte.predict.sse import SsePredictor

BOS, VOCAB, LANES, LENGTH = 0, 9, 2, 150


class Repeated(Predictor):
    """A predictor with the same few rows in every chunk."""

    def __init__(self, rows_BTV: Tensor) -> None:
        self.rows_BTV = rows_BTV
        self.chunk, self.vocab_size = rows_BTV.shape[1], rows_BTV.shape[2]

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        return self.rows_BTV[:, : tokens_BT.shape[1]]

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)

    def restore(self) -> None:
        super().restore()


def some_rows(chunk: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(LANES, chunk, VOCAB, generator=generator)).log_softmax(-1)


def some_tokens() -> Tensor:
    tokens_BT = torch.from_numpy(np.random.default_rng(1).integers(1, VOCAB, (LANES, LENGTH)))
    tokens_BT[0, 40] = tokens_BT[1, -10:] = BOS
    return tokens_BT


def walk(predictor: Predictor, tokens_BT: Tensor, *, by_steps: bool = False) -> Tensor:
    predictor.restore()
    parts, last_B = [], torch.full((len(tokens_BT),), BOS)
    for chunk_BT in tokens_BT.split(predictor.chunk, dim=1):
        if by_steps:
            for token_B in chunk_BT.T:
                parts.append(predictor.step(last_B)[:, None])
                last_B = token_B
        else:
            parts.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    return torch.cat(parts, dim=1)


class Map:
    """How often the answer was yes, by rank, the last three first answers, and stretch."""

    def __init__(self, depth: int) -> None:
        knots = np.linspace(-8, 8, 33)
        self.yes = np.tile(1 / (1 + np.exp(-knots)), (depth, 8, 1))

    def row(self, log_p_V: np.ndarray, recent: int, share: float) -> tuple[np.ndarray, list]:
        """Return log q and what was read: (rank, token, knot, part) of each."""
        order = np.argsort(-log_p_V, kind="stable")[: len(self.yes)]
        p_V = np.exp(log_p_V)
        q_V, left, new_left, read = np.zeros(VOCAB), 1.0, 1.0, []
        for rank, token in enumerate(order):
            yes = p_V[token] / left
            stretch = min(max(math.log(yes / (1 - yes)), -8.0), 8.0)
            place = (stretch + 8) * 2
            knot = min(int(place), 31)
            line = self.yes[rank, recent]
            mapped = line[knot] + (place - knot) * (line[knot + 1] - line[knot])
            new_yes = share * mapped + (1 - share) * yes
            q_V[token] = new_left * new_yes
            read.append((rank, int(token), knot, place - knot))
            left, new_left = left - p_V[token], new_left * (1 - new_yes)
        others = np.setdiff1d(np.arange(VOCAB), order)
        q_V[others] = new_left * p_V[others] / p_V[others].sum()
        return np.log(q_V), read


def reference(config: SseConfig, rows_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    mind, out = Map(config.depth), torch.zeros(LANES, LENGTH, VOCAB, dtype=torch.float64)
    recent, last = [0] * LANES, [BOS] * LANES
    for t in range(LENGTH):
        moves, uses = np.zeros_like(mind.yes), np.zeros_like(mind.yes)
        for b in range(LANES):
            log_p_V = rows_BTV[b, t % rows_BTV.shape[1]].double().numpy()
            log_q_V, read = mind.row(log_p_V, recent[b], config.share)
            out[b, t], token = torch.from_numpy(log_q_V), int(tokens_BT[b, t])
            is_padding = token == BOS and last[b] == BOS
            last[b] = token
            if is_padding:
                continue
            for rank, guess, knot, part in read:
                for at, weight in ((knot, 1 - part), (knot + 1, part)):
                    error = (guess == token) - mind.yes[rank, recent[b], at]
                    moves[rank, recent[b], at] += weight * error
                    uses[rank, recent[b], at] += weight
                if guess == token:
                    break
            recent[b] = (2 * recent[b] + (read[0][1] == token)) % 8
        mind.yes += config.rate * moves / (1 + config.rate * uses)
    return out


def test_rows_are_those_of_the_definition() -> None:
    config, rows_BTV, tokens_BT = SseConfig(rate=0.1, depth=3), some_rows(11), some_tokens()
    found_BTV = walk(SsePredictor(Repeated(rows_BTV), config, BOS), tokens_BT).double()
    expected_BTV = reference(config, rows_BTV, tokens_BT)
    torch.testing.assert_close(found_BTV, expected_BTV, atol=2e-5, rtol=0)


def test_steps_give_the_bits_of_chunks() -> None:
    predictor = SsePredictor(Repeated(some_rows(11)), SseConfig(), BOS)
    tokens_BT = some_tokens()
    rows_BTV = walk(predictor, tokens_BT)
    assert torch.equal(rows_BTV, walk(predictor, tokens_BT, by_steps=True))


def test_rows_sum_to_one_even_where_a_token_is_certain() -> None:
    rows_BTV = some_rows(11)
    rows_BTV[:, 3] = -60.0
    rows_BTV[:, 3, 4] = 0.0
    found_BTV = walk(SsePredictor(Repeated(rows_BTV), SseConfig(depth=5), BOS), some_tokens())
    sums = found_BTV.double().exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)
