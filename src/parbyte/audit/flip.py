"""T1 and T4: change what comes later; what came before must not move.

T1 changes one token, at the borders of chunks, windows, lanes and documents; where a scorer takes
inputs and targets apart, also the input alone and the target alone. T4 changes all that stands
behind a moment.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parbyte.audit.scorer import Scorer, Scores, gaps
from parbyte.audit.subject import AuditConfig, Subject, border_positions, ordinary_ids
from parbyte.audit.verdict import CheckResult, Finding

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Change:
    """One change of the sample, and what the scorer said then."""

    what: str
    place: int
    scores: Scores
    watched_N: NDArray[np.bool_]
    """Positions whose prices this may not touch."""


def check_flip(subject: Subject, config: AuditConfig) -> CheckResult:
    """T1: flip one token at a time and watch every price that was fixed before it."""
    subject.base()  # a command says only in an answer whether it takes them apart
    together = _watch("T1", subject, config, _flips(subject, config))
    if not subject.scorer.takes_apart:
        return together
    apart = _watch("T1", subject, config, _flips_apart(subject, config))
    figures = {**together.figures, "apart": apart.figures}
    return CheckResult(check="T1", findings=together.findings + apart.findings, figures=figures)


def check_suffix(subject: Subject, config: AuditConfig) -> CheckResult:
    """T4: replace everything behind a moment by noise of the same length."""
    return _watch("T4", subject, config, _swaps(subject, config))


def _flips(subject: Subject, config: AuditConfig) -> Iterator[_Change]:
    scorer, stream_N = subject.scorer, subject.sample_N
    order_N = scorer.order(stream_N)
    for place, token in _replacements(subject, config):
        changed_N = stream_N.copy()
        changed_N[place] = token
        yield _Change(
            what=f"token {place:,} was changed",
            place=place,
            scores=scorer.score(changed_N),
            watched_N=_before(order_N, place, changed_N == stream_N),
        )


def _flips_apart(subject: Subject, config: AuditConfig) -> Iterator[_Change]:
    """Change nothing, then inputs alone and targets alone; a first token is an input only."""
    scorer, stream_N = subject.scorer, subject.sample_N
    order_N = scorer.order(stream_N)
    is_priced_N = np.arange(len(stream_N)) > 0
    yield _Change(
        what="inputs and targets were given apart",
        place=0,
        scores=scorer.score_apart(stream_N[:-1], stream_N[1:]),
        watched_N=is_priced_N & (order_N >= 0),
    )
    for place, token in _replacements(subject, config):
        changed_N = stream_N.copy()
        changed_N[place] = token
        if place < len(stream_N) - 1:
            yield _Change(
                what=f"input {place:,} alone was changed",
                place=place,
                scores=scorer.score_apart(changed_N[:-1], stream_N[1:]),
                watched_N=_before(order_N, place, is_priced_N),
            )
        yield _Change(
            what=f"target {place:,} alone was changed",
            place=place,
            scores=scorer.score_apart(stream_N[:-1], changed_N[1:]),
            watched_N=_before(order_N, place, is_priced_N & (changed_N == stream_N)),
        )


def _swaps(subject: Subject, config: AuditConfig) -> Iterator[_Change]:
    scorer, stream_N = subject.scorer, subject.sample_N
    rng = np.random.default_rng([config.seed, 4])
    order_N, ids = scorer.order(stream_N), ordinary_ids(scorer)
    last = int(order_N.max())
    for moment in sorted({max(1, last // 7), last // 3 + 1, last // 2 + 1, max(1, last - 2)}):
        later_N = order_N >= moment
        # Where documents begin shapes the lanes, which the bitstream's header pays for.
        later_N &= stream_N != (-1 if scorer.bos_id is None else scorer.bos_id)
        changed_N = stream_N.copy()
        changed_N[later_N] = ids[rng.integers(len(ids), size=int(later_N.sum()))]
        yield _Change(
            what=f"all was changed from {moment:,} on",
            place=moment,
            scores=scorer.score(changed_N),
            watched_N=(order_N >= 0) & (order_N < moment),
        )


def _replacements(subject: Subject, config: AuditConfig) -> Iterator[tuple[int, int]]:
    """Yield positions to change and another token for each; every time the same."""
    scorer, stream_N = subject.scorer, subject.sample_N
    rng = np.random.default_rng([config.seed, 1])
    for place in border_positions(scorer, stream_N, config.positions, rng):
        yield place, _another(scorer, int(stream_N[place]), rng)


def _before(
    order_N: NDArray[np.int64], place: int, allowed_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which positions are decoded no later than a place, among the allowed ones."""
    return allowed_N & (order_N >= 0) & (order_N <= order_N[place])


def _watch(
    check: str, subject: Subject, config: AuditConfig, changes: Iterable[_Change]
) -> CheckResult:
    """Find prices that moved although the change came later."""
    base, findings, worst, count = subject.base(), [], 0.0, 0
    for change in changes:
        gap_N = np.where(change.watched_N, gaps(base.nats_N, change.scores.nats_N), 0.0)
        worst, count = max(worst, float(gap_N.max())), count + 1
        if gap_N.max() > config.repeat_nats:
            findings.append(_moved(check, change, gap_N, config.repeat_nats))
    figures = {"changes": count, "worst_nats": worst, "tokens": len(base.nats_N)}
    return CheckResult(check=check, findings=tuple(findings[:_SHOWN]), figures=figures)


def _moved(check: str, change: _Change, gap_N: NDArray[np.float64], allowed: float) -> Finding:
    moved = np.flatnonzero(gap_N > allowed)
    farthest = int(gap_N.argmax())
    return Finding(
        check=check,
        severity="violation",
        evidence=(
            f"{change.what}, and {len(moved):,} prices that this may not touch moved: that of "
            f"token {farthest:,} by {gap_N[farthest]:.3g} nats"
        ),
        figures={
            "changed": change.place,
            "moved": moved[:20].tolist(),
            "num_moved": len(moved),
            "worst_nats": float(gap_N.max()),
        },
    )


def _another(scorer: Scorer, token: int, rng: np.random.Generator) -> int:
    ids = ordinary_ids(scorer)
    return int(rng.choice(ids[ids != token]))
