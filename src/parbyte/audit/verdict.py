"""What an audit says: findings with evidence, what was tested and what was not, one verdict.

certified    nothing broken was found, and a fresh process decoded the text
not proven   nothing broken was found, but no decoding shows the score to be a codelength
invalid      a test shows that the score is no codelength, or is not what it claims to be
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["proof of invalidity", "violation", "note"]
DECODE = "T11"
TITLES = {
    "T1": "future flip",
    "T2": "counterfactual sum",
    "T3": "prefix replay",
    "T4": "suffix swap",
    "T5": "artifact independence",
    "T6": "noise bound",
    "T7": "model ablation",
    "T8": "multiplicity and coverage",
    "T9": "byte audit",
    "T10": "re-run and order",
    "T11": "decode proof",
    "T12": "isolation",
}
"""Check -> what it is called; all checks, in the order in which they are shown."""

RULES = {
    "T1": "The price of a token depends on what comes before it and on nothing else.",
    "T2": "Before a token is seen, the prices of all tokens must form one distribution.",
    "T3": "The price of a prefix is the same whether or not a text goes on behind it.",
    "T4": "The price of a prefix is the same whatever stands behind it.",
    "T5": "The artifact is the same whatever the held-out text is.",
    "T6": "No code is k bits shorter than the entropy of noise, but with probability 2^-k.",
    "T7": "A score that hardly changes without its trained model is no score of the model.",
    "T8": "Every token of the text is scored once, and the total is the sum of those prices.",
    "T9": "Tokens restore the text, and their bytes are counted once each.",
    "T10": "Scoring the same text again, or independent parts in another order, changes nothing.",
    "T11": "A fresh process restores the text from the artifact and the bitstream.",
    "T12": "The decoder uses no network and reads nothing but the artifact and the bitstream.",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing, with its evidence."""

    check: str
    severity: Severity
    evidence: str
    """One sentence with the positions and numbers that show it."""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The rule that is broken, in one sentence."""
        return RULES[self.check]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check that was made: what it found, and what it measured on the way."""

    check: str
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """True if nothing but notes was found."""
        return all(finding.severity == "note" for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class NotTested:
    """A check that was not made, and why."""

    check: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The whole audit of one subject."""

    subject: str
    artifact_sha256: str | None = None
    """Of the artifact that was audited; None for a foreign scorer."""
    checks: tuple[CheckResult, ...]
    not_tested: tuple[NotTested, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the gravest first."""
        order = ("proof of invalidity", "violation", "note")
        found = [finding for check in self.checks for finding in check.findings]
        return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))

    @property
    def verdict(self) -> Literal["certified", "not proven", "invalid"]:
        """The audit in one word; see the top of the file."""
        if not all(check.passed for check in self.checks):
            return "invalid"
        return "certified" if any(c.check == DECODE for c in self.checks) else "not proven"

    def to_json(self) -> dict[str, Any]:
        """Return plain values as docs/verdict.schema.json describes them; infinities as text."""
        return _plain(self._table())

    def _table(self) -> dict[str, Any]:
        return {
            "format": 1,
            "subject": self.subject,
            "artifact_sha256": self.artifact_sha256,
            "verdict": self.verdict,
            "findings": [
                {**asdict(f), "title": TITLES[f.check], "rule": f.rule} for f in self.findings
            ],
            "checks": [
                {
                    "check": check.check,
                    "title": TITLES[check.check],
                    "passed": check.passed,
                    "seconds": check.seconds,
                    "figures": dict(check.figures),
                }
                for check in self.checks
            ],
            "not_tested": [{**asdict(n), "title": TITLES[n.check]} for n in self.not_tested],
        }


def _plain(value: Any) -> Any:
    """Return a value with floats that JSON lacks written as text."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
