"""T5: build the artifact with the held-out text permuted, and without it; its bytes stay equal."""

import random

from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding, NotTested
from parbyte.base.files import sha256_bytes


def check_independence(subject: Subject, config: AuditConfig) -> CheckResult | NotTested:
    """T5: three builds from the same training text and seed give the same bytes."""
    if subject.build is None or subject.text is None:
        return NotTested(check="T5", reason="it needs to build the artifact again")
    shuffled = list(subject.text)
    random.Random(config.seed).shuffle(shuffled)
    cases = {"as it is": subject.text, "permuted": bytes(shuffled), "absent": None}
    built = {name: sha256_bytes(subject.build(text)) for name, text in cases.items()}
    findings = tuple(
        Finding(
            check="T5",
            severity="violation",
            evidence=f"with the held-out text {name} the artifact has another SHA-256",
            figures={"artifact": built["as it is"], name: sha256},
        )
        for name, sha256 in built.items()
        if sha256 != built["as it is"]
    )
    return CheckResult(check="T5", findings=findings, figures={"sha256": built})
