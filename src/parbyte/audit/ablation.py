"""T7: put an untrained model of the same shape in place of the trained one."""

import numpy as np

from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding, NotTested

_SMALLEST_CHANGE = 0.03


def check_ablation(subject: Subject, config: AuditConfig) -> CheckResult | NotTested:
    """T7: note a score that changes by less than 3 % when the model knows nothing."""
    if subject.untrained is None:
        return NotTested(check="T7", reason="no artifact whose weights could be taken away")
    trained = float(np.nansum(subject.base().nats_N))
    untrained = float(np.nansum(subject.untrained.score(subject.sample_N).nats_N))
    change = untrained / trained - 1.0 if trained else 0.0
    figures = {"nats": trained, "untrained_nats": untrained, "change": change}
    if change >= _SMALLEST_CHANGE:
        return CheckResult(check="T7", figures=figures)
    evidence = (
        f"with untrained weights the sample costs {100 * change:+.1f} %: the score is not the "
        "trained model's"
    )
    finding = Finding(check="T7", severity="note", evidence=evidence, figures=figures)
    return CheckResult(check="T7", findings=(finding,), figures=figures)
