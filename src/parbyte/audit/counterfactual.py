"""T2: put every token of the vocabulary where one token stands; their probabilities sum to one.

    sum over v of exp(-price of v at t, the text ending there) = 1

Only a vector that was fixed before the token was seen passes. A vector that is made to sum to one
after the token is known passes every sum over its rows, and fails this.

For a large vocabulary the likeliest tokens (by a guess g) are all priced and n of the other R are
drawn; with d(v) = p(v) - g(v) the estimate is  sum g + sum of d over the likeliest
+ R x mean of d over the drawn, and its error bar R x sd(d) / sqrt(n).
Shapes: V vocab, N positions.
"""

import math
from dataclasses import dataclass

import numpy as np

from parbyte.audit.scorer import Nats, Scorer, Stream
from parbyte.audit.subject import AuditConfig, Subject, border_positions
from parbyte.audit.verdict import CheckResult, Finding

_ERROR_BARS = 6.0
_NEGATIVE_NATS = -1e-5
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class CounterfactualSum:
    """The sum at one position, with its error bar (0 if every token was priced)."""

    position: int
    total: float
    error: float
    priced: int


def check_counterfactual(subject: Subject, config: AuditConfig) -> CheckResult:
    """T2: take the sum at borders and drawn positions; a total above one proves invalidity."""
    scorer, stream_N = subject.scorer, subject.sample_N
    rng = np.random.default_rng([config.seed, 2])
    places = _sum_positions(scorer, stream_N, config, rng)
    sums = [counterfactual_sum(scorer, stream_N, place, config, rng) for place in places]
    findings = _impossible_prices(subject) + _wrong_rows(subject, config)
    findings += [finding for one in sums if (finding := _judge(one, config))]
    figures = {
        "sums": [{"position": s.position, "sum": s.total, "error": s.error} for s in sums],
        "priced": sum(s.priced for s in sums),
        "vocab_size": scorer.vocab_size,
        "row_error": subject.base().row_error,
    }
    return CheckResult(check="T2", findings=tuple(findings[:_SHOWN]), figures=figures)


def counterfactual_sum(
    scorer: Scorer, stream_N: Stream, position: int, config: AuditConfig, rng: np.random.Generator
) -> CounterfactualSum:
    """Return the sum of probabilities of all tokens at a position, exact or estimated."""
    vocab_size = scorer.vocab_size
    if vocab_size <= config.exact_vocab:
        probs_V = _probs(scorer.alternatives(stream_N, position, range(vocab_size)))
        total = float(probs_V.sum())
        return CounterfactualSum(position=position, total=total, error=0.0, priced=vocab_size)
    guess_V, likely, num_drawn = scorer.guess(stream_N, position), config.likely, config.drawn
    if guess_V is None:
        guess_V = np.zeros(vocab_size)
        rank_V = np.argsort(-_counts(stream_N, vocab_size))
    else:
        # What is left to estimate is nothing but rounding, unless a row depends on its token.
        likely, num_drawn = max(1, likely // 4), max(2, num_drawn // 4)
        rank_V = np.argsort(-guess_V)
    drawn = rng.choice(rank_V[likely:], size=num_drawn, replace=False)
    tokens = np.concatenate([rank_V[:likely], drawn])
    excess = _probs(scorer.alternatives(stream_N, position, tokens.tolist())) - guess_V[tokens]
    rest, excess_drawn = vocab_size - likely, excess[likely:]
    total = guess_V.sum() + excess[:likely].sum() + rest * excess_drawn.mean()
    error = rest * excess_drawn.std(ddof=1) / math.sqrt(len(drawn))
    return CounterfactualSum(
        position=position, total=float(total), error=float(error), priced=len(tokens)
    )


def _sum_positions(
    scorer: Scorer, stream_N: Stream, config: AuditConfig, rng: np.random.Generator
) -> list[int]:
    """Prefer the first token behind a chunk: an update that reaches too far shows there."""
    order_N = scorer.order(stream_N)
    places = border_positions(scorer, stream_N, 4 * config.sum_positions, rng)
    first = [p for p in places if scorer.chunk and order_N[p] == scorer.chunk][:1]
    if scorer.chunk and not first:
        first = np.flatnonzero(order_N == scorer.chunk)[:1].tolist()
    others = [p for p in places if p not in first]
    drawn = rng.choice(len(others), size=min(len(others), config.sum_positions), replace=False)
    return sorted({*first, *(others[i] for i in drawn)})


def _judge(one: CounterfactualSum, config: AuditConfig) -> Finding | None:
    excess = one.total - 1.0
    allowed = config.sum_error + _ERROR_BARS * one.error
    if not abs(excess) > allowed:
        return None
    bar = f" +- {one.error:.2g}" if one.error else ""
    return Finding(
        check="T2",
        severity="proof of invalidity" if excess > 0 else "violation",
        evidence=(
            f"the probabilities of all tokens at position {one.position:,} sum to "
            f"{one.total:.6g}{bar}, not to 1"
        ),
        figures={"position": one.position, "sum": one.total, "error": one.error},
    )


def _impossible_prices(subject: Subject) -> list[Finding]:
    nats_N = subject.base().nats_N
    below = np.flatnonzero(nats_N < _NEGATIVE_NATS)
    if not len(below):
        return []
    lowest = int(np.nanargmin(nats_N))
    return [
        Finding(
            check="T2",
            severity="proof of invalidity",
            evidence=(
                f"{len(below):,} tokens cost less than nothing: token {lowest:,} costs "
                f"{nats_N[lowest]:.4g} nats, a probability above 1"
            ),
            figures={"positions": below[:20].tolist()},
        )
    ]


def _wrong_rows(subject: Subject, config: AuditConfig) -> list[Finding]:
    error = subject.base().row_error
    if error is None or error <= config.sum_error:
        return []
    return [
        Finding(
            check="T2",
            severity="violation",
            evidence=f"a row's probabilities sum to exp(+-{error:.4g}), not to 1",
            figures={"row_error": error},
        )
    ]


def _probs(nats_K: Nats) -> Nats:
    """Turn prices into probabilities; an unscored alternative counts as impossible."""
    return np.exp(-np.where(np.isnan(nats_K), np.inf, nats_K))


def _counts(stream_N: Stream, vocab_size: int) -> Nats:
    return np.bincount(stream_N, minlength=vocab_size).astype(np.float64)
