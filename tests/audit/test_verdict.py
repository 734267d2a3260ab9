"""A verdict in one word, and as JSON that keeps to its schema."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.run import audit
from parbyte.audit.subject import AuditConfig, Subject, made_up_text
from parbyte.audit.verdict import RULES, TITLES, CheckResult, Finding, NotTested, Severity, Verdict
from parbyte.base.log import Console

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "verdict.schema.json").read_text())
PASSED = CheckResult(check="T1")
DECODED = CheckResult(check="T11")


def found(severity: Severity, check: str = "T2") -> CheckResult:
    finding = Finding(check=check, severity=severity, evidence="it is 2, not 1")
    return CheckResult(check=check, findings=(finding,))


@pytest.mark.parametrize(
    ("checks", "word"),
    [
        ([PASSED, DECODED], "certified"),
        ([PASSED, DECODED, found("note")], "certified"),
        ([PASSED], "not proven"),
        ([DECODED, found("violation")], "invalid"),
        ([DECODED, found("proof of invalidity")], "invalid"),
        ([found("violation", "T11")], "invalid"),
    ],
)
def test_the_word(checks: list[CheckResult], word: str) -> None:
    assert Verdict(subject="x", checks=tuple(checks)).verdict == word


def test_the_gravest_finding_comes_first() -> None:
    checks = (found("note"), found("violation", "T3"), found("proof of invalidity", "T6"))
    verdict = Verdict(subject="x", checks=checks)
    assert [finding.check for finding in verdict.findings] == ["T6", "T3", "T2"]


def test_every_check_has_a_title_and_a_rule() -> None:
    assert list(TITLES) == list(RULES) == [f"T{n}" for n in range(1, 13)]


def test_the_json_keeps_to_its_schema() -> None:
    gap = NotTested(check="T5", reason="no time")
    checks = (found("violation"), DECODED)
    verdict = Verdict(subject="x", checks=checks, not_tested=(gap,)).to_json()
    json.dumps(verdict, allow_nan=False)
    assert_keeps_to(verdict, SCHEMA)


def test_infinite_figures_become_text() -> None:
    check = CheckResult(check="T1", figures={"worst": [math.inf, 1.0]})
    table = Verdict(subject="x", checks=(check,)).to_json()
    assert table["checks"][0]["figures"] == {"worst": ["inf", 1.0]}


def test_an_audit_accounts_for_every_check() -> None:
    scorer = FunctionScorer(
        lambda stream_N: [math.log(9)] * len(stream_N), name="uniform", vocab_size=9
    )
    sample_N = made_up_text(scorer, np.random.default_rng(0))
    subject = Subject(name="uniform", scorer=scorer, sample_N=sample_N[:200])
    verdict = audit(subject, AuditConfig(noise_tokens=500), Console(quiet=True))
    named = {check.check for check in verdict.checks} | {gap.check for gap in verdict.not_tested}
    assert named == set(TITLES)
    assert verdict.verdict == "not proven"
    assert_keeps_to(verdict.to_json(), SCHEMA)
    json.dumps(verdict.to_json(), allow_nan=False)


def assert_keeps_to(value: Any, schema: dict[str, Any]) -> None:
    """Check the few words of JSON Schema that the verdict's schema uses."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"]["check"]
    if "const" in schema:
        assert value == schema["const"]
    if "enum" in schema:
        assert value in schema["enum"]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema:
        allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, kinds[kind]) for kind in allowed)
    if "properties" in schema:
        assert set(value) == set(schema["required"]) == set(schema["properties"])
        for name, inner in schema["properties"].items():
            assert_keeps_to(value[name], inner)
    if "items" in schema:
        for item in value:
            assert_keeps_to(item, schema["items"])
