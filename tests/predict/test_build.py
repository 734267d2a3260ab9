"""Only known, sane predictor settings build a predictor."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from parbyte.base.errors import ArtifactError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.build import build_predictor

CONFIG = ModelConfig(vocab_size=9, bos_id=0, model_dim=8, num_heads=1, num_kv_heads=1, rope_dims=2)


@dataclass
class FakeArtifact:
    model: GPT
    predict: dict[str, Any]


def test_settings_reach_the_predictor() -> None:
    artifact = FakeArtifact(GPT(CONFIG), {"window": 64, "stride": 16, "engine": "torch"})
    predictor = build_predictor(artifact)
    assert (predictor.chunk, predictor.vocab_size) == (16, 9)


def test_the_dtype_reaches_the_network() -> None:
    artifact = FakeArtifact(GPT(CONFIG), {"dtype": "bfloat16"})
    build_predictor(artifact)
    assert artifact.model.compute_dtype == torch.bfloat16
    build_predictor(FakeArtifact(artifact.model, {}))
    assert artifact.model.compute_dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dtype": "float16"}, "predict.dtype"),
        ({"engine": "portable", "dtype": "bfloat16"}, "predict.dtype"),
        ({"window": 64, "stride": 65}, "predict.stride"),
        ({"window": 0}, "predict.window"),
        ({"window": "wide"}, "predict.window"),
        ({"engine": "abacus"}, "predict.engine"),
        ({"windw": 64}, "predict.windw"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ArtifactError, match=named) as caught:
        build_predictor(FakeArtifact(GPT(CONFIG), settings))
    assert "\n" not in str(caught.value)
