"""T8: which positions were priced, how often, and what the total is made of."""

import math

import numpy as np

from parbyte.audit.scorer import Scorer, Scores, Stream
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding, Severity

_RELATIVE = 1e-4
_SHOWN = 20


def check_coverage(subject: Subject, config: AuditConfig) -> CheckResult:
    """T8: every position once, the total their sum, and the ledger what comes out again."""
    scorer, stream_N = subject.whole()
    scores = subject.base() if stream_N is subject.sample_N else scorer.score(stream_N)
    findings = [*_positions(scorer, stream_N, scores), *_total(scores)]
    figures = {
        "tokens": len(stream_N),
        "scored": int((scores.times_N > 0).sum()),
        "nats": scores.total_nats,
    }
    if subject.ledger is not None:
        findings += _replayed(subject, scores)
        figures["ledger_nats"] = subject.ledger.nats
    if scores.num_bytes is not None and subject.text is not None:
        findings += _bytes(scores.num_bytes, len(subject.text))
    return CheckResult(check="T8", findings=tuple(findings), figures=figures)


def _positions(scorer: Scorer, stream_N: Stream, scores: Scores) -> list[Finding]:
    is_due_N = scorer.order(stream_N) >= 0
    is_bos_N = stream_N == (-1 if scorer.bos_id is None else scorer.bos_id)
    missing_N = is_due_N & (scores.times_N == 0)
    found: list[Finding] = []
    cases: list[tuple[np.ndarray, Severity, str]] = [
        (missing_N & ~is_bos_N, "violation", "tokens are never scored"),
        (scores.times_N > 1, "violation", "tokens are scored more than once"),
        (missing_N & is_bos_N, "note", "BOS cost nothing: where documents begin is not paid for"),
    ]
    for is_case_N, severity, text in cases:
        places = np.flatnonzero(is_case_N)
        if len(places):
            evidence = f"{len(places):,} of {len(stream_N):,} {text}, the first at {places[0]:,}"
            figures = {"positions": places[:_SHOWN].tolist(), "count": len(places)}
            found.append(Finding(check="T8", severity=severity, evidence=evidence, figures=figures))
    return found


def _total(scores: Scores) -> list[Finding]:
    once = float(np.nansum(scores.nats_N))
    if scores.times_N.max(initial=0) > 1 or math.isclose(
        once, scores.total_nats, rel_tol=_RELATIVE, abs_tol=1e-6
    ):
        return []
    evidence = f"the total is {scores.total_nats:,.3f} nats, its prices sum to {once:,.3f}"
    return [_violation(evidence, total=scores.total_nats, sum=once)]


def _replayed(subject: Subject, scores: Scores) -> list[Finding]:
    ledger = subject.ledger
    assert ledger is not None
    found = []
    scored = int(scores.times_N.sum())
    if ledger.num_tokens != scored:
        found.append(
            _violation(
                f"the ledger counts {ledger.num_tokens:,} tokens, scoring again {scored:,}",
                ledger=ledger.num_tokens,
                again=scored,
            )
        )
    if not math.isclose(ledger.nats, scores.total_nats, rel_tol=_RELATIVE):
        found.append(
            _violation(
                f"the ledger says {ledger.nats:,.2f} nats, scoring again {scores.total_nats:,.2f}",
                ledger=ledger.nats,
                again=scores.total_nats,
            )
        )
    if subject.text is not None:
        found += _bytes(ledger.num_bytes, len(subject.text))
    return found


def _bytes(counted: int, there: int) -> list[Finding]:
    if counted == there:
        return []
    evidence = f"{counted:,} bytes are counted, the text has {there:,}"
    return [_violation(evidence, counted=counted, text=there)]


def _violation(evidence: str, **figures: float) -> Finding:
    return Finding(check="T8", severity="violation", evidence=evidence, figures=figures)
