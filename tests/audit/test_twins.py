"""The audit catches every wrong twin by the check that names it, and accuses no honest scorer."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from parbyte.audit.run import audit
from parbyte.audit.subject import AuditConfig
from parbyte.audit.verdict import Verdict
from parbyte.base.log import Console


def load_twins() -> ModuleType:
    path = Path(__file__).with_name("twins.py")
    spec = importlib.util.spec_from_file_location("twins", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["twins"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


twins = load_twins()


def verdict_on(twin: object, config: AuditConfig = twins.QUICK) -> Verdict:
    return audit(twin.make(), config, Console(quiet=True))  # type: ignore[attr-defined]


def checks_that_found(verdict: Verdict) -> set[str]:
    return {result.check for result in verdict.checks if not result.passed}


@pytest.mark.parametrize("twin", twins.WRONG, ids=lambda twin: twin.name)
def test_a_wrong_twin_is_caught_by_the_check_that_names_it(twin: object) -> None:
    verdict = verdict_on(twin)
    assert twin.caught_by in checks_that_found(verdict)  # type: ignore[attr-defined]
    assert verdict.verdict == "invalid"


@pytest.mark.parametrize("twin", twins.HONEST, ids=lambda twin: twin.name)
def test_an_honest_scorer_passes_every_check(twin: object) -> None:
    verdict = verdict_on(twin)
    assert not verdict.findings, [finding.evidence for finding in verdict.findings]
    assert verdict.verdict == "not proven"  # nothing was decoded


def test_there_are_at_least_sixteen_twins_and_each_has_its_own_name() -> None:
    names = [twin.name for twin in twins.WRONG + twins.HONEST]
    assert len(set(names)) == len(names)
    assert len(twins.WRONG) >= 16


def test_the_fake_normaliser_passes_a_sum_over_its_rows() -> None:
    (twin,) = [twin for twin in twins.WRONG if twin.name == "fake normaliser"]
    row_error = twin.make().base().row_error
    assert row_error is not None and row_error < 1e-5


def test_the_hashed_ratio_is_proven_invalid_beyond_doubt() -> None:
    (twin,) = [twin for twin in twins.WRONG if twin.name == "two-table hashed ratio"]
    verdict = verdict_on(twin, AuditConfig(noise_tokens=100_000))
    (uniform,) = [f for f in verdict.findings if f.figures.get("law") == "uniform"]
    assert uniform.severity == "proof of invalidity"
    assert uniform.figures["log2_p"] < -1000


def test_peeking_at_the_length_is_seen_by_prefixes_and_not_by_suffixes() -> None:
    (twin,) = [twin for twin in twins.WRONG if twin.name == "peeking at the length"]
    found = checks_that_found(verdict_on(twin))
    assert "T3" in found and "T4" not in found
