"""T3: a text that ends earlier costs the same as far as it goes."""

import numpy as np

from parbyte.audit.scorer import gaps
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding

_LENGTHS = (0.13, 0.37, 0.5, 0.71, 0.94)
_SHOWN = 5


def check_prefix(subject: Subject, config: AuditConfig) -> CheckResult:
    """T3: score prefixes, most of them ending inside a chunk; compare with the whole."""
    scorer, stream_N = subject.scorer, subject.sample_N
    base, order_N = subject.base(), scorer.order(stream_N)
    end = int(order_N.max()) + 1
    moments = {max(1, round(end * share)) for share in _LENGTHS} | {max(1, end - 1)}
    if 0 < scorer.chunk < end:
        moments |= {scorer.chunk, min(end - 1, scorer.chunk + 1)}
    findings, worst = [], 0.0
    for moment in sorted(moments):
        prefix = scorer.score_until(stream_N, moment)
        is_prefix_N = (order_N >= 0) & (order_N < moment)
        gap_N = np.where(is_prefix_N, gaps(base.nats_N, prefix.nats_N), 0.0)
        # A relative part: a price of 20 nats carries more rounding than one of 0.1.
        gap_N -= config.replay_nats * np.where(is_prefix_N, np.nan_to_num(base.nats_N) / 10, 0.0)
        worst = max(worst, float(gap_N.max()))
        if gap_N.max() > config.replay_nats:
            place = int(gap_N.argmax())
            findings.append(
                Finding(
                    check="T3",
                    severity="violation",
                    evidence=(
                        f"with the text ending at {moment:,} of {end:,}, the price of token "
                        f"{place:,} is another by {gap_N[place]:.3g} nats"
                    ),
                    figures={
                        "end": moment,
                        "token": place,
                        "num_moved": int((gap_N > config.replay_nats).sum()),
                        "worst_nats": float(gap_N[place]),
                    },
                )
            )
    figures = {"prefixes": len(moments), "worst_nats": max(worst, 0.0)}
    return CheckResult(check="T3", findings=tuple(findings[:_SHOWN]), figures=figures)
