"""A small model with random weights, and its artifact, for all tests of this room."""

from pathlib import Path
from typing import Any

import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import ROLES, QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

QUICK = PackConfig(coders=("range",))


@pytest.fixture(scope="session")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def model_config(tokenizer: ByteTokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        num_layers=2,
        model_dim=32,
        num_heads=2,
        num_kv_heads=1,
        mlp_dim=48,
        rope_dims=8,
        logit_bias=True,
        smear="gated",
        bigram_buckets=64,
        bigram_dim=16,
        skips="gated",
    )


@pytest.fixture(scope="session")
def weights(model_config: ModelConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = GPT(model_config, seed=0)
    return {
        name: parameter.detach() + 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in model.named_parameters()
    }


@pytest.fixture(scope="session")
def artifact_bytes(
    weights: dict[str, torch.Tensor], model_config: ModelConfig, tokenizer: ByteTokenizer
) -> bytes:
    return build_artifact(
        weights, model_config, tokenizer, {"window": 64}, QuantConfig(), QUICK, 10**6, {"seed": 3}
    )


@pytest.fixture
def artifact_path(artifact_bytes: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "model.parbyte"
    path.write_bytes(artifact_bytes)
    return path


WAYS: list[dict[str, Any]] = [
    {},
    {"group": 8, "lqer_rank": 2, "sparse_share": 0.02},
    {"grid": "e8"},
    {"grid": "codebook", "clip": "max", **{f"bits_{role}": 3 for role in ROLES}},
]


@pytest.fixture(params=WAYS, ids=["plain", "repaired", "e8", "codebook"])
def any_artifact_path(
    request: pytest.FixtureRequest,
    weights: dict[str, torch.Tensor],
    model_config: ModelConfig,
    tokenizer: ByteTokenizer,
    tmp_path: Path,
) -> Path:
    """An artifact of each kind of grid, and one with all that may stand beside codes."""
    quant = QuantConfig(**request.param)
    path = tmp_path / "model.parbyte"
    path.write_bytes(
        build_artifact(weights, model_config, tokenizer, {"window": 64}, quant, QUICK, 10**6, {})
    )
    return path
