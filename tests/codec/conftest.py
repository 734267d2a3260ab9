"""A toy artifact on disk: a random little model over bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import Artifact, build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

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


def write_toy_artifact(path: Path, seed: int) -> Path:
    """Pack a random model whose every parameter matters."""
    model = GPT(MODEL, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    settings = {"window": 16, "stride": 8, "engine": "torch"}
    pack = PackConfig(fit=False, coders=("range",))
    data = build_artifact(
        weights, MODEL, ByteTokenizer(), settings, QuantConfig(), pack, 1_000_000, {}
    )
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_artifact(tmp_path_factory.mktemp("toy") / "model.parbyte", seed=0)


@pytest.fixture(scope="session")
def other_artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_artifact(tmp_path_factory.mktemp("other") / "model.parbyte", seed=1)


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
