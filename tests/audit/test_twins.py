"""The audit catches every wrong twin by the check that names it, and accuses no honest scorer."""

import numpy as np
import pytest
import torch
from tests.audit import twins

from parbyte.audit.flip import check_flip
from parbyte.audit.run import audit
from parbyte.audit.subject import AuditConfig
from parbyte.audit.verdict import Verdict
from parbyte.base.log import Console


def verdict_on(twin: twins.Twin, config: AuditConfig | None = None) -> Verdict:
    return audit(twin.make(), config or twin.config, Console(quiet=True))


def checks_that_found(verdict: Verdict) -> set[str]:
    return {result.check for result in verdict.checks if not result.passed}


@pytest.mark.parametrize("twin", twins.WRONG, ids=lambda twin: twin.name)
def test_a_wrong_twin_is_caught_by_the_check_that_names_it(twin: twins.Twin) -> None:
    verdict = verdict_on(twin)
    assert twin.caught_by in checks_that_found(verdict)
    assert verdict.verdict == "invalid"


@pytest.mark.parametrize("twin", twins.HONEST, ids=lambda twin: twin.name)
def test_an_honest_scorer_passes_every_check(twin: twins.Twin) -> None:
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


def test_only_flips_of_inputs_and_targets_apart_see_a_look_at_the_targets() -> None:
    (twin,) = [twin for twin in twins.WRONG if twin.name == "padding guessed from the targets"]
    verdict = verdict_on(twin)
    assert checks_that_found(verdict) == {"T1"}
    assert all("alone was changed" in finding.evidence for finding in verdict.findings)
    assert any("target" in finding.evidence for finding in verdict.findings)

    def joined(stream_N: twins.Stream) -> twins.Nats:
        nats_M = twins.padding_guess(stream_N[:-1], stream_N[1:])
        return np.concatenate([[np.nan], nats_M])

    subject = twins.function_subject("joined", joined)
    assert not audit(subject, twins.QUICK, Console(quiet=True)).findings


def test_a_predictor_whose_rows_see_their_own_target_is_caught_by_the_target_alone() -> None:
    class Peeking(twins.OnlineBigram):
        def log_probs(self, tokens_BT: torch.Tensor) -> torch.Tensor:
            power = 1.0 + tokens_BT[:, -1].sum() / 100
            return (super().log_probs(tokens_BT) * power).log_softmax(-1)

    result = check_flip(twins.predictor_subject("peeking", Peeking()), AuditConfig(positions=40))
    assert any(f.evidence.startswith("target") for f in result.findings)
