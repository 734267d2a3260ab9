"""Shared test settings: one torch thread, so that parallel test runs do not fight for cores."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from parbyte.cli import main
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

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


@pytest.fixture(scope="session")
def pack_toy() -> Callable[..., bytes]:
    """Return a function that packs a random byte model, every parameter of which matters."""

    def pack(
        config: ModelConfig, predict: Mapping[str, Any], *, noise: float = 0.3, seed: int = 0
    ) -> bytes:
        generator = torch.Generator().manual_seed(seed)
        weights = {
            name: value + noise * torch.randn(value.shape, generator=generator)
            for name, value in GPT(config, seed=seed).state_dict().items()
        }
        quick = PackConfig(fit=False, coders=("range",))
        tokenizer, quant = ByteTokenizer(), QuantConfig()
        return build_artifact(weights, config, tokenizer, predict, quant, quick, 1 << 20, {})

    return pack


NETWORK = ("predict/test_portable_ttt.py", "predict/test_plain_machine.py")
"""Files that compile the portable network's kernels, for this processor and for a plain one."""
STAGES = (
    "e2e/test_seed.py",
    "predict/test_mix.py",
    "predict/test_bytewise.py",
    "pack/test_mixing_coder.py",
)
"""Files that compile the kernels of its stages and of the mixing coder; the first is the longest.

Near the end of a share, a file's tests may be stolen apart, and both workers set it up.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for two workers; skip what needs a CUDA device where there is none."""
    items[:] = ordered(items)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def ordered(items: list[pytest.Item]) -> list[pytest.Item]:
    """Let each half begin with kernels of its own, so that nothing is compiled by two workers.

    Workers begin with equal shares of the list; what one has compiled the other finds on disk.
    """
    network, stages = (
        [item for item in items if item.path.as_posix().endswith(files)]
        for files in (NETWORK, STAGES)
    )
    moved = {*network, *stages}
    rest = [item for item in items if item not in moved]
    half = max(0, len(items) // 2 - len(network))
    return [*network, *rest[:half], *stages, *rest[half:]]
