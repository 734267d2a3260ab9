"""Shared test settings: one torch thread, so that parallel test runs do not fight for cores."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from parbyte.cli import main

Say = Callable[..., tuple[int, str, str]]

settings.register_profile(
    "parbyte", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("parbyte")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # what the tests start keeps to it, too


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    # A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs a command: exit code, stdout, stderr."""

    def command(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
