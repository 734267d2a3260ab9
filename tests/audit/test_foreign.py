"""Somebody else's scorer is audited by its answers: a function, or a command over JSON lines."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.audit.flip import check_flip
from parbyte.audit.foreign import CommandScorer, FunctionScorer, load_function
from parbyte.audit.subject import AuditConfig, Subject, made_up_text
from parbyte.base.errors import DataError, RecipeError

UNIFORM = """
import json, math, sys
for line in sys.stdin:
    tokens = json.loads(line)["tokens"]
    print(json.dumps({"nats": [math.log(16)] * len(tokens), "bytes": 3}), flush=True)
"""

APART = """
import json, math, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "tokens" in asked:
        asked["inputs"], asked["targets"] = asked["tokens"][:-1], asked["tokens"][1:]
    pairs = zip(asked["targets"], asked["inputs"][1:])
    price = math.log(16) + {leak} * sum(one != other for one, other in pairs)
    nats = [price] * len(asked["targets"])
    nats = [None, *nats] if "tokens" in asked else nats
    print(json.dumps({"nats": nats, "apart": True}), flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> str:
    script = tmp_path / "score.py"
    script.write_text(UNIFORM)
    return f"{sys.executable} {script}"


def test_a_command_answers_one_line_for_each(command: str) -> None:
    scorer = CommandScorer(command, vocab_size=16)
    try:
        for length in (1, 5000):
            scores = scorer.score(np.zeros(length, np.uint16))
            assert scores.nats_N.tolist() == [np.log(16)] * length
            assert scores.num_bytes == 3
    finally:
        scorer.close()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("pass", "ended without an answer"),
        ("input(); print('hello', flush=True)", "answered no JSON"),
        ('input(); print(\'{"error": "no such token"}\', flush=True)', "no such token"),
        ("input(); print('[1.0]', flush=True)", "1 prices for 2 tokens"),
    ],
)
def test_a_command_that_fails_is_one_line(tmp_path: Path, body: str, complaint: str) -> None:
    script = tmp_path / "score.py"
    script.write_text(body)
    scorer = CommandScorer(f"{sys.executable} {script}", vocab_size=16)
    try:
        with pytest.raises(DataError, match=complaint):
            scorer.score(np.zeros(2, np.uint16))
    finally:
        scorer.close()


def test_a_command_that_cannot_start_is_one_line() -> None:
    with pytest.raises(RecipeError, match="cannot start"):
        CommandScorer("/no/such/program", vocab_size=16)


def test_a_function_that_fails_is_one_line_with_its_place() -> None:
    def fails(tokens: np.ndarray) -> np.ndarray:
        raise ValueError(f"no price\nfor {len(tokens)} tokens")

    scorer = FunctionScorer(fails, name="mine:fails", vocab_size=9)
    complaint = r"^scorer 'mine:fails' failed: ValueError: no price for 3 tokens \(.*test_foreign"
    with pytest.raises(DataError, match=complaint):
        scorer.score(np.zeros(3, np.uint16))


def test_prices_that_are_no_array_are_one_line() -> None:
    def learning(tokens: np.ndarray) -> torch.Tensor:
        return torch.zeros(len(tokens), requires_grad=True)

    with pytest.raises(DataError, match="no usable 'nats'"):
        FunctionScorer(learning, name="mine", vocab_size=9).score(np.zeros(3, np.uint16))


def test_a_module_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_python_at_all.py").write_text("def score(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="cannot import 'no_python_at_all': SyntaxError"):
        load_function("no_python_at_all:score")


@pytest.mark.parametrize("name", ["json", "json:", "no_such_module_here:score", "json:no_such"])
def test_a_function_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(RecipeError):
        load_function(name)


@pytest.mark.parametrize("leak", ["0.0", "0.1"])
def test_a_command_that_takes_inputs_and_targets_apart_is_flipped_apart(
    tmp_path: Path, leak: str
) -> None:
    script = tmp_path / "score.py"
    script.write_text(APART.replace("{leak}", leak))
    scorer = CommandScorer(f"{sys.executable} {script}", vocab_size=16, bos_id=0)
    try:
        sample_N = made_up_text(scorer, np.random.default_rng(0))
        subject = Subject(name="apart", scorer=scorer, sample_N=sample_N)
        result = check_flip(subject, AuditConfig())
    finally:
        scorer.close()
    assert scorer.takes_apart and result.figures["apart"]["changes"] > 20
    assert result.passed == (leak == "0.0")
    assert all("alone" in finding.evidence for finding in result.findings)


def test_a_function_of_two_parameters_takes_inputs_and_targets() -> None:
    def score(inputs: np.ndarray, targets: np.ndarray, verbose: bool = False) -> list[float]:
        assert len(inputs) == len(targets)
        return [float(token) for token in targets]

    scorer = FunctionScorer(score, name="two", vocab_size=16, bos_id=0)
    scores = scorer.score(np.array([0, 3, 5], np.uint16))
    assert np.isnan(scores.nats_N[0]) and scores.nats_N[1:].tolist() == [3.0, 5.0]
    assert scores.times_N.tolist() == [0, 1, 1]
    assert scorer.score(np.array([0], np.uint16)).times_N.tolist() == [0]
    assert not FunctionScorer(lambda tokens: tokens, name="one", vocab_size=16).takes_apart
