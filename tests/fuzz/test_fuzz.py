"""A few seconds of the harness that `make fuzz MINUTES=5` runs for longer."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz import harness

HARNESS = Path(__file__).with_name("harness.py")


@pytest.mark.slow
def test_a_short_fuzz_finds_nothing(tmp_path: Path) -> None:
    words = [sys.executable, HARNESS, "--minutes", "0.05", "--out", tmp_path / "findings"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "findings 0" in done.stdout
    assert not (tmp_path / "findings").exists()


@pytest.mark.parametrize(
    ("read", "hint"),
    [("1 / 0", "ZeroDivisionError"), ("bytearray(99 << 20)", "MemoryError"), ("None", None)],
)
def test_the_harness_sees_what_it_is_there_for(tmp_path: Path, read: str, hint: str | None) -> None:
    subject = harness.Subject("x", [b"x"], lambda _: eval(read))
    problem = harness.try_one(subject, b"x", tmp_path / "x")
    assert (problem is None) == (hint is None)
    assert hint is None or hint in problem
