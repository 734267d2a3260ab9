"""Keys of n-grams and the two tables that count them: a context's, and a context's with its token.

    context key (order n, first token i)   h = x[i] P[0] ^ x[i+1] P[1] ^ .. ^ x[i+n-2] P[n-2]
    full key                               h ^ x[i+n-1] P[n-1]

P is used over and over when it is short. The prime of a token counts from the oldest, so the full
key of order n is the context key of order n + 1: one product a position and an order.
Shapes: N tokens, P n-grams of one order, R buckets.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PRIMES = (36313, 27191, 51647, 81929, 131071, 174763, 233017, 282527, 357347, 451439)
"""PR 1430's multipliers."""

Keys = Iterator[tuple[int, Tensor, Tensor]]
"""(order, context keys, full keys), order 2 first; entry i is of the n-gram that begins at i."""
KeySource = Callable[[int, int], Keys]
"""The keys of a stretch of the stream, from its first token to behind its last."""


def hashed_keys(tokens: Tensor, max_order: int, buckets: int, primes: Sequence[int]) -> Keys:
    """Yield the keys of all n-grams along the last axis of int64[..., N]."""
    hashed = tokens * primes[0]
    for order in range(2, max_order + 1):
        if tokens.shape[-1] < order:
            return
        longer = hashed[..., :-1] ^ (tokens[..., order - 1 :] * primes[(order - 1) % len(primes)])
        yield order, hashed[..., :-1] % buckets, longer % buckets
        hashed = longer


def exact_keys(stream_N: Tensor, max_order: int) -> KeySource:
    """Number the distinct n-grams of a stream: keys that never collide, at most N of an order.

    The numbers come from the whole stream, but say of two places only whether they are equal.
    """
    numbers = [stream_N]
    for order in range(2, min(max_order, len(stream_N)) + 1):
        pairs = numbers[-1][: len(stream_N) - order + 1] * (int(stream_N.max()) + 1)
        numbers.append(torch.unique(pairs + stream_N[order - 1 :], return_inverse=True)[1])

    def keys(start: int, stop: int) -> Keys:
        for order in range(2, min(max_order, stop - start) + 1):
            span = slice(start, stop - order + 1)
            yield order, numbers[order - 2][span], numbers[order - 1][span]

    return keys


@dataclass(kw_only=True)
class Tables:
    """Counters float32[orders, R] of contexts and of contexts with their token."""

    context: Tensor
    full: Tensor
    unigram_V: Tensor
    tokens_seen: int = 0
    """How often a token was counted; the same one perhaps many times."""

    @classmethod
    def empty(cls, vocab_size: int, max_order: int, buckets: int, device: torch.device) -> "Tables":
        """Return tables that have seen nothing."""
        shape = (max_order - 1, buckets)
        return cls(
            context=torch.zeros(shape, device=device),
            full=torch.zeros(shape, device=device),
            unigram_V=torch.zeros(vocab_size, device=device),
        )

    def count(self, order: int, context: Tensor, full: Tensor, times: Tensor | None = None) -> None:
        """Count n-grams of one order by their keys, each `times` times (float32, default once)."""
        times = self.context.new_ones(()) if times is None else times
        times = times.expand(context.shape).reshape(-1)
        self.context[order - 2].scatter_add_(0, context.reshape(-1), times)
        self.full[order - 2].scatter_add_(0, full.reshape(-1), times)

    def count_tokens(self, tokens: Tensor) -> None:
        """Count single tokens."""
        tokens = tokens.reshape(-1)
        self.unigram_V.scatter_add_(0, tokens, self.unigram_V.new_ones(tokens.shape))
        self.tokens_seen += len(tokens)

    def read(self, order: int, context: Tensor, full: Tensor) -> tuple[Tensor, Tensor]:
        """Return the counts of contexts and of contexts with their token, float64."""
        at = order - 2
        return self.context[at][context].double(), self.full[at][full].double()
