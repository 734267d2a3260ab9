"""Ctrl-C and kill -9 at any moment: exit 130, nothing half-written, and the next run goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.clock import Stopwatch
from parbyte.base.log import Console

Command = Callable[..., Any]
STAGES = ("data", "train", "pack", "score", "compress", "prove", "report")
_PATIENCE_S = 120.0


def begun(err: str) -> list[str]:
    return [stage for stage in STAGES if f"{stage}: begins" in err]


def test_an_interrupt_in_any_stage_is_130_and_the_next_run_resumes(
    toy: Path, parbyte: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy.parent / "run"
    say = Console.say
    armed: list[str] = []

    def say_and_interrupt(self: Console, text: str) -> None:
        say(self, text)
        if armed and text == f"{armed[0]}: begins":
            armed.clear()
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(Console, "say", say_and_interrupt)
    finished = 0
    for stage in STAGES:
        if STAGES.index(stage) < finished:
            continue
        armed.append(stage)
        answer = parbyte("run", toy, "--out", run)
        assert (answer.code, "interrupted" in answer.complaint) == (130, True)
        # A quick stage may end before the signal comes; what was finished stays finished.
        assert begun(answer.err)[0] == STAGES[finished]
        finished = STAGES.index(begun(answer.err)[-1])
        assert not (run / "scorecard.json").exists() or finished == len(STAGES) - 1
        assert list(run.rglob("*.part")) == []
    answer = parbyte("run", toy, "--out", run)
    assert (answer.code, begun(answer.err)) == (0, [*STAGES[finished:]])


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    words = [str(argument) for argument in arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "parbyte", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    watch = Stopwatch()
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert watch.elapsed_s() < _PATIENCE_S
        threading.Event().wait(0.02)


@pytest.mark.slow
def test_kill_9_in_training_then_run_again_gives_the_same_weights(
    toy: Path, parbyte: Command
) -> None:
    long = ("--set", "train.steps=200", "--set", "train.log_every_seconds=0")
    killed, whole = toy.parent / "killed", toy.parent / "whole"
    process = start("train", toy, "--out", killed, *long, "--set", "train.checkpoint_seconds=1e-9")
    wait_for(lambda: any((killed / "checkpoint").glob("step-*[1-9][0-9]/*")), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "weights.safetensors").exists()
    answer = parbyte("train", toy, "--out", killed, *long)
    assert (answer.code, begun(answer.err)) == (0, ["train"])
    assert "resumed after step" in answer.err
    log = (killed / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log]
    assert steps == sorted(set(steps))
    assert parbyte("train", toy, "--out", whole, *long).code == 0
    name = "weights.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_ends_it_with_130_and_one_line(
    toy: Path, number: signal.Signals
) -> None:
    run = toy.parent / "run"
    process = start("run", toy, "--out", run, "--set", "train.steps=1000000", "--quiet")
    wait_for(lambda: (run / "log.jsonl").exists(), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert (out, len(err.splitlines())) == ("", 1)
