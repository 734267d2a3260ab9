"""A small model and a prepared data folder, for the tests that learn from text."""

from pathlib import Path

import numpy as np
import pytest

from parbyte.base.log import Console
from parbyte.model.config import ModelConfig
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare

TRAINING = b"the cat sat on the mat and the dog saw it. "
HELDOUT = b"ZEBRAS QUIZ! "


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text whose held-out part has letters that training never shows."""
    folder = tmp_path_factory.mktemp("quant")
    generator = np.random.default_rng(0)
    words = TRAINING.split()
    lines = [b" ".join(generator.permutation(words).tolist()) for _ in range(400)]
    corpus = folder / "corpus.txt"
    last = [HELDOUT + str(index).encode() for index in range(20)]
    corpus.write_bytes(b"\n\n".join([*lines, *last]))
    config = TextConfig(
        corpus=str(corpus), documents="paragraphs", tokenizer="bytes", heldout_fraction=0.1
    )
    prepare(config, folder / "data", Console(quiet=True))
    return folder / "data"


@pytest.fixture(scope="session")
def model_config() -> ModelConfig:
    return ModelConfig(
        vocab_size=257,
        bos_id=256,
        num_layers=2,
        model_dim=32,
        num_heads=2,
        num_kv_heads=1,
        mlp_dim=48,
        rope_dims=8,
        bigram_buckets=64,
        bigram_dim=16,
        value_embed_dim=8,
        value_embed_layers=1,
        logit_bias=True,
    )
