"""T5: build the artifact with the held-out text permuted, and without it; its bytes stay equal."""

import random

from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding, NotTested
from parbyte.base.files import sha256_bytes

_AS_IT_IS = "as it is"


def check_independence(subject: Subject, config: AuditConfig) -> CheckResult | NotTested:
    """T5: builds from the same training text and seed give the same bytes, whatever is held out."""
    if subject.build is None or subject.text is None:
        return NotTested(check="T5", reason="the artifact was not built again (a run: `--deep`)")
    permuted = _permuted(subject.text, random.Random(config.seed))
    cases = {_AS_IT_IS: subject.text, "permuted": permuted, "absent": None}
    built = {name: sha256_bytes(subject.build(text)) for name, text in cases.items()}
    others = {name: sha256 for name, sha256 in built.items() if sha256 != built[_AS_IT_IS]}
    # A build that does not repeat itself (a GPU's may not) shows nothing by coming out different.
    if others and sha256_bytes(subject.build(subject.text)) != built[_AS_IT_IS]:
        reason = "two builds beside the same held-out text differ: building is not repeatable here"
        return NotTested(check="T5", reason=reason)
    findings = tuple(
        Finding(
            check="T5",
            severity="violation",
            evidence=f"with the held-out text {name} the artifact has another SHA-256",
            figures={"artifact": built[_AS_IT_IS], name: sha256},
        )
        for name, sha256 in others.items()
    )
    figures = {**subject.build_figures, "sha256": built}
    return CheckResult(check="T5", findings=findings, figures=figures)


def _permuted(text: bytes, rng: random.Random) -> bytes:
    """Return a text's characters in another order; of what is no UTF-8, its bytes."""
    try:
        characters = list(text.decode())
    except UnicodeDecodeError:
        shuffled = list(text)
        rng.shuffle(shuffled)
        return bytes(shuffled)
    rng.shuffle(characters)
    return "".join(characters).encode()
