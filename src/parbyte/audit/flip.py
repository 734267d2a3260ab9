"""T1 and T4: change what comes later; what came before must not move.

T1 changes one token, at the borders of chunks, windows, lanes and documents; T4 changes all that
stands behind a moment.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from parbyte.audit.scorer import Scorer, Stream, gaps
from parbyte.audit.subject import AuditConfig, Subject, border_positions, ordinary_ids
from parbyte.audit.verdict import CheckResult, Finding

_SHOWN = 5


def check_flip(subject: Subject, config: AuditConfig) -> CheckResult:
    """T1: flip one token at a time and watch every price that was fixed before it."""
    scorer, stream_N = subject.scorer, subject.sample_N
    rng = np.random.default_rng([config.seed, 1])
    positions = border_positions(scorer, stream_N, config.positions, rng)

    def flip(position: int) -> tuple[Stream, int]:
        changed_N = stream_N.copy()
        changed_N[position] = _another(scorer, int(stream_N[position]), rng)
        return changed_N, int(scorer.order(stream_N)[position])

    return _watch("T1", subject, config, positions, flip)


def check_suffix(subject: Subject, config: AuditConfig) -> CheckResult:
    """T4: replace everything behind a moment by noise of the same length."""
    scorer, stream_N = subject.scorer, subject.sample_N
    rng = np.random.default_rng([config.seed, 4])
    order_N = scorer.order(stream_N)
    last = int(order_N.max())
    moments = sorted({max(1, last // 7), last // 3 + 1, last // 2 + 1, max(1, last - 2)})

    def swap(moment: int) -> tuple[Stream, int]:
        changed_N = stream_N.copy()
        later_N = order_N >= moment
        # Where documents begin shapes the lanes, which the bitstream's header pays for.
        later_N &= stream_N != (-1 if scorer.bos_id is None else scorer.bos_id)
        ids = ordinary_ids(scorer)
        changed_N[later_N] = ids[rng.integers(len(ids), size=int(later_N.sum()))]
        return changed_N, moment - 1

    return _watch("T4", subject, config, moments, swap)


def _watch(
    check: str,
    subject: Subject,
    config: AuditConfig,
    places: list[int],
    change: Callable[[int], tuple[Stream, int]],
) -> CheckResult:
    """Score a changed stream for each place; find prices that moved although they came first."""
    scorer, stream_N = subject.scorer, subject.sample_N
    base, order_N = subject.base(), scorer.order(subject.sample_N)
    findings, worst = [], 0.0
    for place in places:
        changed_N, moment = change(place)
        watched_N = (order_N <= moment) & (order_N >= 0) & (changed_N == stream_N)
        gap_N = np.where(watched_N, gaps(base.nats_N, scorer.score(changed_N).nats_N), 0.0)
        worst = max(worst, float(gap_N.max()))
        if gap_N.max() > config.repeat_nats:
            findings.append(_moved(check, place, gap_N, config.repeat_nats))
    figures = {"places": len(places), "worst_nats": worst, "tokens": len(stream_N)}
    return CheckResult(check=check, findings=tuple(findings[:_SHOWN]), figures=figures)


def _moved(check: str, place: int, gap_N: NDArray[np.float64], allowed: float) -> Finding:
    moved = np.flatnonzero(gap_N > allowed)
    farthest = int(gap_N.argmax())
    what = f"token {place:,} was changed" if check == "T1" else f"all was changed from {place:,} on"
    return Finding(
        check=check,
        severity="violation",
        evidence=(
            f"{what}, and {len(moved):,} prices fixed before it moved: that of token "
            f"{farthest:,} by {gap_N[farthest]:.3g} nats"
        ),
        figures={
            "changed": place,
            "moved": moved[:20].tolist(),
            "num_moved": len(moved),
            "worst_nats": float(gap_N.max()),
        },
    )


def _another(scorer: Scorer, token: int, rng: np.random.Generator) -> int:
    ids = ordinary_ids(scorer)
    return int(rng.choice(ids[ids != token]))
