"""Hints that raise a token's logit, given by experts some of which ask what the answer is.

Experts, their contexts, and when they speak:
    token    the last 16 tokens                       always
    within   the tokens of the word so far            if the answer goes on with the word
    start    the last three words                     if the answer begins a word
Raising the logit of the hint h by b and taking the softmax is the tilt p(t) e^(b [t = h]) / Z.
Shapes: N tokens of the stream, E experts, M scored places, V vocab.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.claimed import Base, Claimed
from parbyte.claims.windows import Batch, Windows, claim

_BASE = 6_364_136_223_846_793_005
"""Odd, so it has an inverse modulo 2^64: int64 products and sums wrap around."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Settings of the agreement experts; the defaults are PR 1145's."""

    length: int = setting(16, low=1, doc="tokens in the token expert's context")
    words: int = setting(3, low=1, doc="words in the start expert's context")
    thresholds: tuple[float, float, float] = setting(
        (0.80, 0.45, 0.65), doc="smallest best / count of token, within, start"
    )
    boosts: tuple[float, float, float] = setting(
        (2.625, 0.75, 0.75), doc="what each raises its hint's logit by"
    )
    agreement: float = setting(0.5, low=0.0, doc="added where another expert has the same hint")
    chunk: int = setting(131_072, low=1, unit="tokens", doc="counted when it is scored")
    asks_answer: bool = setting(True, doc="let within and start speak by the answer's class")


@dataclass(frozen=True, kw_only=True)
class WordClasses:
    """What a tokenizer's ids are: bool[V] each. A boundary is a BOS or a control token."""

    begins_word_V: Tensor
    is_boundary_V: Tensor


def agreement_experts(
    model: Base, stream_N: Tensor, windows: Windows, classes: WordClasses, settings: Experts
) -> Claimed:
    """Tilt each row towards the hint with the largest expected gain.

    The gain is confidence x boost - ln(1 + p(h) (e^boost - 1)). Words are compared as they are, not
    in lower case. With `asks_answer` the mere presence of a hint tells the answer's class.

    Breaks C1 and C2 (T2) with `asks_answer`, nothing without. Source: card 16; PR 1145, 1302.
    """
    hint_EN, trust_EN = find_hints(stream_N, classes, settings)
    boosts = torch.tensor(settings.boosts, dtype=torch.float64, device=stream_N.device)

    @torch.no_grad()
    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        logits_MV = model.logits(hidden_BLD[batch.row_M, batch.column_M])
        hint_EM, trust_EM = hint_EN[:, batch.positions_M], trust_EN[:, batch.positions_M]
        speaks_EM = hint_EM >= 0
        same_EEM = (hint_EM[:, None] == hint_EM) & speaks_EM[:, None] & speaks_EM
        boost_EM = boosts[:, None] + settings.agreement * (same_EEM.sum(1) > 1)
        probs_EM = logits_MV.softmax(-1).gather(1, hint_EM.clamp(min=0).T).T
        gain_EM = trust_EM * boost_EM - torch.log1p(probs_EM * torch.expm1(boost_EM))
        gain_M, best_M = gain_EM.masked_fill(~speaks_EM, -torch.inf).max(0)
        chosen = best_M[None]
        raise_M = torch.where(gain_M > 0, boost_EM.gather(0, chosen)[0], 0.0).to(logits_MV.dtype)
        index_M1 = hint_EM.gather(0, chosen).clamp(min=0).T
        return logits_MV.scatter_add(1, index_M1, raise_M[:, None])

    return claim(model, windows.batches(stream_N), fit)


def find_hints(stream_N: Tensor, classes: WordClasses, settings: Experts) -> tuple[Tensor, Tensor]:
    """Return each expert's hint at each position, int64[E, N], -1 for none, and best / count."""
    begins_N, bounds_N = classes.begins_word_V[stream_N], classes.is_boundary_V[stream_N]
    goes_on_N = ~(begins_N | bounds_N)
    keys = context_keys(stream_N, begins_N | bounds_N, settings)
    hints, trusts = [], []
    for expert, key_N in enumerate(keys):
        best_N, trust_N = _best_next(key_N, stream_N, settings.chunk)
        is_open_N = trust_N >= settings.thresholds[expert]
        if settings.asks_answer and expert:
            is_open_N &= goes_on_N if expert == 1 else begins_N
        hints.append(torch.where(is_open_N, best_N, -1))
        trusts.append(trust_N)
    return torch.stack(hints), torch.stack(trusts)


def context_keys(stream_N: Tensor, opens_N: Tensor, settings: Experts) -> list[Tensor]:
    """Return a 64-bit hash of each expert's context at each position, int64[N] of each.

    A word begins where opens_N is true. The hash of a stretch comes from sums over prefixes.
    """
    place_N = torch.arange(len(stream_N), device=stream_N.device)
    power_N = torch.full_like(stream_N, _BASE).cumprod(0)
    sums_N = torch.cat([stream_N.new_zeros(1), ((stream_N + 1) * power_N).cumsum(0)])
    inverse_N = torch.full_like(stream_N, _signed(pow(_BASE, -1, 1 << 64))).cumprod(0)

    def stretch(begin_N: Tensor) -> Tensor:
        """Hash the tokens begin .. position - 1, and how many they are."""
        hashed_N = (sums_N[place_N] - sums_N[begin_N]) * inverse_N[begin_N]
        return hashed_N * _BASE + (place_N - begin_N)

    first_N = torch.where(opens_N, place_N, 0).cummax(0).values
    begin_N, keys = place_N, [stretch((place_N - settings.length).clamp(min=0))]
    for words in range(1, settings.words + 1):
        begin_N = first_N[(begin_N - 1).clamp(min=0)]
        if words in (1, settings.words):
            keys.append(stretch(begin_N))
    return keys if settings.words > 1 else [*keys, keys[-1]]


def _best_next(key_N: Tensor, stream_N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the token that most often followed each key in earlier chunks, and its share."""
    num_keys, key_N = _numbered(key_N)
    vocab_size = int(stream_N.max()) + 1
    num_pairs, pair_N = _numbered(key_N * vocab_size + stream_N)
    count_K = key_N.new_zeros(num_keys)
    count_P = key_N.new_zeros(num_pairs)
    # count * V + (V - 1 - token): the largest is the commonest token, the lowest id of equals.
    rank_K = key_N.new_full((num_keys,), -1)
    best_N = torch.full_like(key_N, -1)
    share_N = torch.zeros(len(key_N), dtype=torch.float64, device=key_N.device)
    for begin in range(0, len(key_N), chunk):
        part = slice(begin, begin + chunk)
        keys, pairs, tokens = key_N[part], pair_N[part], stream_N[part]
        rank = rank_K[keys]
        best_N[part] = torch.where(rank >= 0, vocab_size - 1 - rank % vocab_size, -1)
        share_N[part] = (rank // vocab_size).clamp(min=0).double() / count_K[keys].clamp(min=1)
        count_K.scatter_add_(0, keys, torch.ones_like(keys))
        count_P.scatter_add_(0, pairs, torch.ones_like(pairs))
        rank = count_P[pairs] * vocab_size + vocab_size - 1 - tokens
        rank_K.scatter_reduce_(0, keys, rank, "amax")
    return best_N, share_N


def _numbered(key_N: Tensor) -> tuple[int, Tensor]:
    """Number the distinct keys: how many there are, and each one's number."""
    distinct, number_N = torch.unique(key_N, return_inverse=True)
    return len(distinct), number_N


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
