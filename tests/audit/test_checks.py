"""What single checks measure: sums with error bars, noise against its ideal, orders of lanes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.audit.counterfactual import check_counterfactual, counterfactual_sum
from parbyte.audit.coverage import check_coverage
from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.lanes_scorer import LanesScorer
from parbyte.audit.noise import check_noise
from parbyte.audit.rerun import check_rerun
from parbyte.audit.scorer import gaps, to_scores
from parbyte.audit.subject import AuditConfig, Subject, border_positions, noise_stream
from parbyte.base.errors import DataError
from parbyte.base.log import Console
from parbyte.predict.predictor import Predictor
from parbyte.score.ledger import ledger_of
from parbyte.score.measure import measure
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.lanes import plan_lanes

VOCAB = 2000
Nats = NDArray[np.float64]
LAW = np.random.default_rng(0).dirichlet(np.full(VOCAB, 0.05)) * 0.9 + 0.1 / VOCAB


class FixedLaw(Predictor):
    """The same distribution everywhere."""

    vocab_size, chunk = VOCAB, 8
    extra = 1.0

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        row_V = torch.from_numpy(LAW * self.extra).float().log()
        return row_V.expand(*tokens_BT.shape, VOCAB)

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)

    def restore(self) -> None:
        super().restore()


class ByteLaw(FixedLaw):
    """A uniform distribution over bytes and BOS, with a memory of nothing."""

    vocab_size = 257

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        return torch.full((*tokens_BT.shape, 257), -float(np.log(257.0)))


def some_stream(length: int = 60) -> NDArray[np.uint16]:
    rng = np.random.default_rng(3)
    return np.concatenate([[0], rng.integers(1, VOCAB, length)]).astype(np.uint16)


def function_scorer(function: Callable[..., Nats], **more: int) -> FunctionScorer:
    return FunctionScorer(function, name="function", **{"vocab_size": VOCAB, "bos_id": 0, **more})


def test_the_estimate_of_a_predictors_sum_has_no_error_where_its_row_holds() -> None:
    scorer = LanesScorer(FixedLaw(), bos_id=0)
    config = AuditConfig(exact_vocab=100)
    found = counterfactual_sum(scorer, some_stream(), 20, config, np.random.default_rng(0))
    assert found.total == pytest.approx(1.0, abs=1e-5)
    assert found.error < 1e-5
    assert found.priced == (config.likely + config.drawn) // 4


def test_the_estimate_of_a_foreign_sum_covers_the_truth() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        return -np.log(LAW[stream_N])

    config, scorer = AuditConfig(exact_vocab=100, likely=30, drawn=400), function_scorer(price)
    rng = np.random.default_rng(1)
    sums = [counterfactual_sum(scorer, some_stream(), 20, config, rng) for _ in range(30)]
    assert all(found.error > 0 for found in sums)
    mean = np.mean([found.total for found in sums])
    error = np.sqrt(np.mean([found.error**2 for found in sums]) / len(sums))
    assert abs(mean - 1.0) < 4 * error


def test_an_estimated_sum_far_above_one_is_a_proof() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        return np.full(len(stream_N), np.log(VOCAB / 50))

    stream_N = some_stream()
    subject = Subject(name="x", scorer=function_scorer(price), sample_N=stream_N)
    result = check_counterfactual(subject, AuditConfig(exact_vocab=100))
    assert {finding.severity for finding in result.findings} == {"proof of invalidity"}
    assert result.findings[0].figures["sum"] == pytest.approx(50.0, rel=1e-6)


def test_rows_that_do_not_sum_to_one_are_found_even_where_no_sum_is_taken() -> None:
    broken = FixedLaw()
    broken.extra = 0.97
    subject = Subject(name="x", scorer=LanesScorer(broken, bos_id=0), sample_N=some_stream())
    result = check_counterfactual(subject, AuditConfig())
    assert any("a row's probabilities" in finding.evidence for finding in result.findings)


def test_a_price_below_zero_is_a_proof() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        nats_N = -np.log(LAW[stream_N])
        nats_N[7:8] = -0.5
        return nats_N

    subject = Subject(name="x", scorer=function_scorer(price), sample_N=some_stream())
    result = check_counterfactual(subject, AuditConfig(exact_vocab=100))
    assert any("less than nothing" in finding.evidence for finding in result.findings)


def test_noise_costs_the_uniform_law_its_entropy_and_no_less() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        return np.full(len(stream_N), np.log(VOCAB - 1))

    config = AuditConfig(noise_tokens=5000)
    subject = Subject(name="x", scorer=function_scorer(price), sample_N=some_stream())
    result = check_noise(subject, config)
    assert result.passed
    uniform = result.figures["uniform"]
    assert uniform["tokens"] == 5000
    assert uniform["bits"] == pytest.approx(uniform["ideal_bits"], rel=1e-9)
    assert uniform["ideal_bits"] == pytest.approx(5000 * np.log2(VOCAB - 1), rel=1e-9)


def test_the_p_value_is_two_to_the_bits_below() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        return np.full(len(stream_N), np.log(VOCAB - 1) - np.log(2.0) * 0.1)

    subject = Subject(name="x", scorer=function_scorer(price), sample_N=some_stream())
    result = check_noise(subject, AuditConfig(noise_tokens=1000))
    (finding,) = [f for f in result.findings if f.figures["law"] == "uniform"]
    assert finding.figures["log2_p"] == pytest.approx(-100.0, abs=1e-6)


def test_lanes_are_priced_as_measure_prices_them() -> None:
    rng = np.random.default_rng(5)
    documents = [rng.integers(0, 256, n).astype(np.uint16) for n in (40, 3, 90, 17)]
    tokenizer = ByteTokenizer()
    bos = np.array([256], np.uint16)
    stream_N = np.concatenate([part for document in documents for part in (bos, document)])
    scores = LanesScorer(ByteLaw(), 256, num_lanes=2).score(stream_N)
    lanes = plan_lanes(documents, 256, 2, min_lane_tokens=1)
    ledger = measure(ByteLaw(), lanes, tokenizer, Console(quiet=True))
    assert scores.total_nats == pytest.approx(ledger.nats, rel=1e-12)
    assert int(scores.times_N.sum()) == ledger.num_tokens


def test_a_ledger_that_was_not_earned_is_found() -> None:
    stream_N = some_stream()
    scorer = LanesScorer(FixedLaw(), bos_id=0)
    honest = scorer.score(stream_N).total_nats
    subject = Subject(name="x", scorer=scorer, sample_N=stream_N, text_N=stream_N)
    subject.ledger = ledger_of("measured", [])
    evidence = [finding.evidence for finding in check_coverage(subject, AuditConfig()).findings]
    assert len(evidence) == 2
    assert f"scoring again {honest:,.2f}" in evidence[1]


def test_documents_may_change_places_where_they_are_said_to_be_independent() -> None:
    def price(stream_N: NDArray[np.uint16]) -> Nats:
        return 1.0 + 0.001 * np.arange(len(stream_N))

    stream_N = np.array([0, 5, 6, 0, 7, 8, 9], np.uint16)
    subject = Subject(name="x", scorer=function_scorer(price), sample_N=stream_N)
    assert check_rerun(subject, AuditConfig()).passed
    subject.scorer.is_per_document = True
    (finding,) = check_rerun(subject, AuditConfig()).findings
    assert "in another order" in finding.evidence


def test_borders_of_lanes_chunks_and_windows_are_among_the_positions() -> None:
    scorer = LanesScorer(FixedLaw(), bos_id=0, num_lanes=2, window=16)
    stream_N = noise_stream(scorer, 100, np.random.default_rng(0))
    order_N = scorer.order(stream_N)
    places = border_positions(scorer, stream_N, 60, np.random.default_rng(0))
    assert {7, 8, 15, 16, 31, 32} <= set(order_N[places].tolist())
    assert np.flatnonzero(order_N == 0)[1] + 1 in places


def test_gaps_treat_equal_infinities_as_equal_and_missing_prices_as_far() -> None:
    nan, inf = np.nan, np.inf
    found = gaps(np.array([1.0, inf, nan, nan]), np.array([1.5, inf, nan, 2.0]))
    assert found.tolist() == [0.5, 0.0, 0.0, inf]


def test_null_and_places_left_out_are_not_scored() -> None:
    assert to_scores([None, 2.0], 2, "x").times_N.tolist() == [0, 1]
    scores = to_scores({"nats": [2.0, 2.0, 1.0], "positions": [1, 1, 2]}, 3, "x")
    assert scores.times_N.tolist() == [0, 2, 1]
    assert scores.total_nats == 5.0


@pytest.mark.parametrize(
    "answer",
    [
        [1.0, 2.0],
        {"nats": [1.0], "positions": [7]},
        {"nats": [1.0], "positions": [0, 1]},
        {"prices": [1.0]},
        {"nats": "much"},
        "much",
        None,
    ],
)
def test_an_answer_that_does_not_fit_is_refused_in_one_line(answer: object) -> None:
    with pytest.raises(DataError, match="scorer 'x'"):
        to_scores(answer, 3, "x")
