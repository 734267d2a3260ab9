"""The audit convicts every claim by the check that is named for it, and no honest form of one."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from parbyte.audit.run import BLACK_BOX, audit
from parbyte.audit.verdict import CheckResult
from parbyte.base.log import Console


def load_specimens() -> ModuleType:
    path = Path(__file__).with_name("specimens.py")
    spec = importlib.util.spec_from_file_location("specimens", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["specimens"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


specimens = load_specimens()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("specimen", specimens.SPECIMENS, ids=lambda s: s.name)
def test_a_claim_is_convicted_by_the_check_that_is_named_for_it(specimen: object) -> None:
    check = BLACK_BOX[specimen.caught_by]  # type: ignore[attr-defined]
    result = check(specimen.make(), specimens.QUICK)  # type: ignore[attr-defined]
    assert isinstance(result, CheckResult) and not result.passed


@pytest.mark.parametrize("specimen", specimens.HONEST, ids=lambda s: s.name)
def test_its_honest_form_is_accused_of_nothing(specimen: object) -> None:
    verdict = audit(specimen.make(), specimens.GENTLE, Console(quiet=True))  # type: ignore[attr-defined]
    assert not verdict.findings, [finding.evidence for finding in verdict.findings]


def test_the_hashed_mixer_is_proven_impossible_on_noise() -> None:
    (specimen,) = [s for s in specimens.SPECIMENS if s.name == "two-table hashed mixer"]
    result = BLACK_BOX["T6"](specimen.make(), specimens.QUICK)
    assert isinstance(result, CheckResult)
    (uniform,) = [f for f in result.findings if f.figures["law"] == "uniform"]
    assert uniform.severity == "proof of invalidity"
    assert uniform.figures["log2_p"] < -100
