"""Checks in another thread: each scorer does one walk at a time, and the verdict is the same."""

import math
import time
from threading import Lock

import numpy as np

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.run import audit
from parbyte.audit.scorer import Nats, Stream
from parbyte.audit.subject import AuditConfig, Subject, made_up_text
from parbyte.base.log import Console

CONFIG = AuditConfig(noise_tokens=400, positions=4, sum_positions=2)


def one_at_a_time() -> FunctionScorer:
    """Return a scorer with a state that two walks at once would spoil."""
    busy = Lock()

    def score(stream_N: Stream) -> Nats:
        assert busy.acquire(blocking=False), "two walks at once"
        time.sleep(0.002)
        busy.release()
        return np.full(len(stream_N), math.log(9))

    return FunctionScorer(score, name="uniform", vocab_size=9)


def subject_of(*, runs_beside: bool) -> Subject:
    small, full = one_at_a_time(), one_at_a_time()
    full.runs_beside = runs_beside
    text_N = made_up_text(small, np.random.default_rng(0))
    return Subject(
        name="uniform", scorer=small, sample_N=text_N[:100], text_N=text_N, full_scorer=full
    )


def test_no_scorer_walks_twice_at_once_and_the_verdict_is_that_of_one_thread() -> None:
    answers = []
    for runs_beside in (False, True):
        verdict = audit(subject_of(runs_beside=runs_beside), CONFIG, Console(quiet=True))
        answers.append([(check.check, check.findings, check.figures) for check in verdict.checks])
    assert answers[0] == answers[1]
    assert {"T6", "T8"} <= {check for check, _, _ in answers[0]}


def test_an_error_beside_is_the_audits_error() -> None:
    subject = subject_of(runs_beside=True)

    def fail(stream_N: Stream) -> Nats:
        raise ValueError("no score")

    subject.full_scorer = FunctionScorer(fail, name="broken", vocab_size=9)
    subject.full_scorer.runs_beside = True
    try:
        audit(subject, CONFIG, Console(quiet=True))
    except Exception as error:
        assert "no score" in str(error)
    else:
        raise AssertionError("the error was lost")
