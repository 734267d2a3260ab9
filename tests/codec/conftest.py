"""A toy artifact on disk: a random little model over bytes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import Artifact, load_artifact

MODEL = ModelConfig(
    vocab_size=257,
    bos_id=256,
    model_dim=16,
    num_heads=2,
    num_kv_heads=2,
    mlp_dim=24,
    rope_dims=4,
    smear="gated",
)
PREDICT = {"window": 16, "stride": 8, "engine": "torch"}


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory, pack_toy: Callable[..., bytes]) -> Path:
    path = tmp_path_factory.mktemp("toy") / "model.parbyte"
    path.write_bytes(pack_toy(MODEL, PREDICT))
    return path


@pytest.fixture(scope="session")
def other_artifact_path(
    tmp_path_factory: pytest.TempPathFactory, pack_toy: Callable[..., bytes]
) -> Path:
    path = tmp_path_factory.mktemp("other") / "model.parbyte"
    path.write_bytes(pack_toy(MODEL, PREDICT, seed=1))
    return path


@pytest.fixture(scope="session")
def artifact(artifact_path: Path) -> Artifact:
    return load_artifact(artifact_path)


def letters(count: int, seed: int = 0) -> bytes:
    """Text in which nothing repeats, so that only the model makes it much shorter."""
    return bytes(np.random.default_rng(seed).choice(list(b"abcd"), count).astype(np.uint8))


@pytest.fixture(scope="session")
def letters_artifact(artifact: Artifact) -> Artifact:
    """A model that expects the letters a, b, c and d, each as much."""
    config = replace(artifact.model.config, logit_bias=True)
    model = GPT(config, seed=0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "bias" in name and value.shape == (config.vocab_size,):
                value.fill_(-8.0)
                value[torch.tensor(list(b"abcd"))] = 8.0
    model.eval().requires_grad_(False)
    return replace(artifact, model=model)
