"""Somebody else's scorer is audited by its answers: a function, or a command over JSON lines."""

import sys
from pathlib import Path

import numpy as np
import pytest

from parbyte.audit.foreign import CommandScorer, load_function
from parbyte.base.errors import DataError, RecipeError

UNIFORM = """
import json, math, sys
for line in sys.stdin:
    tokens = json.loads(line)["tokens"]
    print(json.dumps({"nats": [math.log(16)] * len(tokens), "bytes": 3}), flush=True)
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


@pytest.mark.parametrize("name", ["json", "json:", "no_such_module_here:score", "json:no_such"])
def test_a_function_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(RecipeError):
        load_function(name)
