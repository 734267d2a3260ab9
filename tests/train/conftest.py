"""A small real text, a small model and a short training, shared by the tests of the room."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.text.builtin import kjv_chapters
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare
from parbyte.train.config import TrainConfig
from parbyte.train.loop import TrainResult, train

MODEL = ModelConfig(
    num_layers=2, model_dim=32, num_heads=2, num_kv_heads=1, mlp_dim=64, smear="static"
)
TRAIN = TrainConfig(
    steps=30,
    batch_tokens=256,
    seq_len=64,
    warmup_steps=2,
    momentum_warmup_steps=10,
    ema=0.1,
    dev_tokens=0,
    threads=1,
    device="cpu",
    seed=3,
)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty chapters of the King James Bible as bytes."""
    folder = tmp_path_factory.mktemp("text")
    lines = [json.dumps({"text": chapter.decode()}) for chapter in islice(kjv_chapters(), 60)]
    (folder / "chapters.jsonl").write_text("\n".join(lines))
    config = TextConfig(corpus=str(folder / "chapters.jsonl"), tokenizer="bytes")
    prepare(config, folder / "data", Console(quiet=True))
    return folder / "data"


@pytest.fixture
def model_config() -> ModelConfig:
    """The small model."""
    return MODEL


@pytest.fixture
def train_config() -> TrainConfig:
    """Thirty steps on one thread."""
    return TRAIN


@pytest.fixture
def run_training(data_folder: Path) -> Callable[..., TrainResult]:
    """Train the small model for 30 steps, with any keys of `[train]` changed."""

    def run(folder: Path, *, console: Console | None = None, **changes: Any) -> TrainResult:
        config = TrainConfig(**{**vars(TRAIN), **changes})
        quiet = console or Console(quiet=True)
        return train(MODEL, config, data_folder, folder, world=World(), console=quiet)

    return run
