"""T10: score again, with another text in between, and in another order: nothing may change."""

import numpy as np

from parbyte.audit.scorer import gaps
from parbyte.audit.subject import AuditConfig, Subject, noise_stream
from parbyte.audit.verdict import CheckResult, Finding


def check_rerun(subject: Subject, config: AuditConfig) -> CheckResult:
    """T10: the second run equals the first bit for bit; lanes or documents may change places.

    What a predictor rounds to bfloat16 is put in another order in float32.
    """
    scorer, stream_N = subject.scorer, subject.sample_N
    first = scorer.score(stream_N)
    rng = np.random.default_rng([config.seed, 10])
    scorer.score(noise_stream(scorer, len(stream_N), rng))
    gap_N = gaps(first.nats_N, scorer.score(stream_N).nats_N)
    findings = []
    if gap_N.max() > 0.0:
        place = int(gap_N.argmax())
        text = f"scored again, {int((gap_N > 0).sum()):,} tokens have another price: token "
        evidence = f"{text}{place:,} by {gap_N[place]:.3g} nats"
        findings.append(_violation(evidence, place, float(gap_N[place])))
    figures = {"worst_nats": float(gap_N.max()), "reordered_nats": None}
    judge = subject.precise or scorer
    reordered = judge.score_reordered(stream_N)
    if reordered is not None:
        ordered = first if judge is scorer else judge.score(stream_N)
        gap_N = gaps(ordered.nats_N, reordered.nats_N)
        place = int(gap_N.argmax())
        figures["reordered_nats"] = float(gap_N[place])
        if gap_N[place] > config.replay_nats:
            evidence = f"in another order, token {place:,} has another price by {gap_N[place]:.3g}"
            findings.append(_violation(f"{evidence} nats", place, float(gap_N[place])))
    return CheckResult(check="T10", findings=tuple(findings), figures=figures)


def _violation(evidence: str, place: int, nats: float) -> Finding:
    figures = {"token": place, "worst_nats": nats}
    return Finding(check="T10", severity="violation", evidence=evidence, figures=figures)
