"""Byte-level PPM mixed into token prices in ways that are no distribution over tokens.

PPM-D without exclusions: from the deepest context seen, p(byte) = (2 c - 1) / (2 N); a byte that
has not followed there pays the escape u / (2 N) and tries the next shorter context; 1 / 256 behind
the last. c, N, u: how often the byte followed, how often any did, how many different ones did.
All of them count earlier positions only, so they are ranks within groups of equal contexts.
Shapes: N tokens of the stream, Y bytes, M scored places, V vocab.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.claimed import Base, Claimed
from parbyte.claims.windows import Batch, Windows, claim


@dataclass(frozen=True, kw_only=True)
class BytePpm:
    """Settings of the PPM and its gate; the defaults are PR 1850's."""

    order: int = setting(4, low=0, doc="bytes of the longest context")
    trusting: float = setting(0.05, low=0.0, high=1.0, doc="the model's share where PPM is sure")
    doubting: float = setting(0.9, low=0.0, high=1.0, doc="the model's share elsewhere")
    threshold: float = setting(
        0.9, low=0.0, high=1.0, doc="PPM is sure if a byte has this share of its deepest context"
    )


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The bytes of a stream's tokens: uint8 as int64[Y], and how many each token has, int64[N]."""

    bytes_Y: Tensor
    counts_N: Tensor

    @property
    def begin_N(self) -> Tensor:
        """Where each token's bytes begin."""
        return self.counts_N.cumsum(0) - self.counts_N

    def places(self, positions_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return for every byte of the tokens at M positions which m it is of, and where it is."""
        counts_M = self.counts_N[positions_M]
        owner_Z = torch.repeat_interleave(counts_M)
        first_Z = (counts_M.cumsum(0) - counts_M)[owner_Z]
        inside_Z = torch.arange(len(owner_Z), device=owner_Z.device) - first_Z
        return owner_Z, self.begin_N[positions_M][owner_Z] + inside_Z


def uniform_spread(base: Claimed, spelling: Spelling, settings: BytePpm) -> Claimed:
    """Spread a token's price evenly over its n bytes, p^(1/n) each, and mix each with PPM's.

    p^(1/n) summed over the next bytes exceeds 1: cost is moved from bytes where the model is unsure
    to bytes where PPM is sure. A token without bytes keeps its price.

    Breaks C2 (T2). Source: card 17; PR 1835, 1850, 1854, 1991, 2083.
    """
    ppm_Y, sure_Y = ppm_probs(spelling.bytes_Y, settings)
    owner_Z, place_Z = spelling.places(base.positions_M)
    counts_M = spelling.counts_N[base.positions_M]
    spread_Z = (-base.nats_M / counts_M.clamp(min=1))[owner_Z].exp()
    mixed_Z = _mixed(spread_Z, ppm_Y[place_Z], sure_Y[place_Z], settings)
    nats_M = torch.zeros_like(base.nats_M).index_add(0, owner_Z, -mixed_Z.log())
    return base.priced(torch.where(counts_M > 0, nats_M, base.nats_M))


def remainder_mixing(
    model: Base,
    stream_N: Tensor,
    windows: Windows,
    spelling: Spelling,
    first_byte_V: Tensor,
    settings: BytePpm,
) -> Claimed:
    """Price the first byte by the softmax's true marginal, then the rest of the token in one piece.

    The rest mixes p(token) / p(first byte) with PPM's product over the token's other bytes. Tokens
    are beginnings of each other, so PPM's products sum to more than 1 over the vocabulary.
    first_byte_V: int64[V], -1 for a token without bytes, which keeps its price.

    Breaks C2 (T2). Source: card 17; PR 2039.
    """
    marginals = []

    @torch.no_grad()
    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        logits_MV = model.logits(hidden_BLD[batch.row_M, batch.column_M])
        same_MV = first_byte_V == first_byte_V[batch.answers_M][:, None]
        marginals.append((logits_MV.double().softmax(-1) * same_MV).sum(1))
        return logits_MV

    base = claim(model, windows.batches(stream_N), fit)
    if not marginals:
        return base
    marginal_M, probs_M = torch.cat(marginals), base.nats_M.neg().exp()
    ppm_Y, sure_Y = ppm_probs(spelling.bytes_Y, settings)
    owner_Z, place_Z = spelling.places(base.positions_M)
    has_bytes_M = spelling.counts_N[base.positions_M] > 0
    begin_M = torch.where(has_bytes_M, spelling.begin_N[base.positions_M], 0)
    log_rest_M = torch.zeros_like(marginal_M).index_add(0, owner_Z, ppm_Y[place_Z].log())
    rest_M = (log_rest_M - ppm_Y[begin_M].log()).exp()
    first_M = _mixed(marginal_M, ppm_Y[begin_M], sure_Y[begin_M], settings)
    rest_M = _mixed(probs_M / marginal_M, rest_M, sure_Y[begin_M], settings)
    return base.priced(torch.where(has_bytes_M, -(first_M * rest_M).log(), base.nats_M))


def ppm_probs(bytes_Y: Tensor, settings: BytePpm) -> tuple[Tensor, Tensor]:
    """Return PPM-D's probability of each byte, float64[Y], and where the gate takes it for sure."""
    place_Y = torch.arange(len(bytes_Y), device=bytes_Y.device)
    contexts = [torch.zeros_like(bytes_Y)]
    for length in range(1, settings.order + 1):
        before_Y = bytes_Y[(place_Y - length).clamp(min=0)]
        contexts.append(_numbered(contexts[-1] * 256 + before_Y))
    probs_Y = torch.zeros(len(bytes_Y), dtype=torch.float64, device=bytes_Y.device)
    escape_Y = torch.ones_like(probs_Y)
    is_open_Y = torch.ones_like(bytes_Y, dtype=torch.bool)
    is_matched_Y, is_sure_Y = ~is_open_Y, ~is_open_Y
    for length in range(settings.order, -1, -1):
        # The first bytes have no context so long: they stand in a group of their own.
        context_Y = torch.where(place_Y >= length, contexts[length], -1 - place_Y)
        counts = _Counts.before(context_Y, bytes_Y)
        is_seen_Y = counts.total_Y > 0
        share_Y = counts.most_Y / counts.total_Y.clamp(min=1)
        is_sure_Y |= is_seen_Y & ~is_matched_Y & (share_Y > settings.threshold)
        is_matched_Y |= is_seen_Y
        twice_Y = 2.0 * counts.total_Y.clamp(min=1)
        is_hit_Y = is_open_Y & (counts.own_Y > 0)
        hit_Y = escape_Y * (2.0 * counts.own_Y - 1.0) / twice_Y
        probs_Y = torch.where(is_hit_Y, hit_Y, probs_Y)
        is_open_Y &= ~is_hit_Y
        escape_Y = torch.where(is_seen_Y, escape_Y * counts.different_Y / twice_Y, escape_Y)
    return torch.where(is_open_Y, escape_Y / 256.0, probs_Y), is_sure_Y


def _mixed(model_Z: Tensor, ppm_Z: Tensor, sure_Z: Tensor, settings: BytePpm) -> Tensor:
    gained = settings.trusting - settings.doubting
    share_Z = settings.doubting + gained * sure_Z.to(ppm_Z.dtype)
    return share_Z * model_Z + (1.0 - share_Z) * ppm_Z


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What stood in each byte's context before it: int64[Y] each."""

    total_Y: Tensor
    own_Y: Tensor
    different_Y: Tensor
    most_Y: Tensor

    @classmethod
    def before(cls, context_Y: Tensor, bytes_Y: Tensor) -> "_Counts":
        group_Y = _numbered(context_Y)
        own_Y = _rank(_numbered(group_Y * 256 + bytes_Y))
        order_Y = torch.argsort(group_Y, stable=True)
        sorted_Y, own_sorted_Y = group_Y[order_Y], own_Y[order_Y]
        total_Y = _rank_of_sorted(sorted_Y)
        is_new_Y = (own_sorted_Y == 0).long()
        news_Y = is_new_Y.cumsum(0) - is_new_Y
        different_Y = news_Y - news_Y[torch.arange(len(news_Y), device=news_Y.device) - total_Y]
        # A running maximum that begins anew in each group: groups lie far apart.
        apart = len(bytes_Y) + 1
        most_Y = (sorted_Y * apart + own_sorted_Y + 1).cummax(0).values - sorted_Y * apart
        most_Y = torch.where(total_Y > 0, most_Y.roll(1), 0)

        def back(value_Y: Tensor) -> Tensor:
            return torch.empty_like(value_Y).scatter(0, order_Y, value_Y)

        return cls(
            total_Y=back(total_Y),
            own_Y=own_Y,
            different_Y=back(different_Y),
            most_Y=back(most_Y),
        )


def _numbered(key_Y: Tensor) -> Tensor:
    return torch.unique(key_Y, return_inverse=True)[1]


def _rank(group_Y: Tensor) -> Tensor:
    """Return how many earlier entries are of the same group."""
    order_Y = torch.argsort(group_Y, stable=True)
    return torch.empty_like(group_Y).scatter(0, order_Y, _rank_of_sorted(group_Y[order_Y]))


def _rank_of_sorted(group_Y: Tensor) -> Tensor:
    place_Y = torch.arange(len(group_Y), device=group_Y.device)
    is_first_Y = torch.ones_like(group_Y, dtype=torch.bool)
    is_first_Y[1:] = group_Y[1:] != group_Y[:-1]
    return place_Y - torch.where(is_first_Y, place_Y, 0).cummax(0).values
