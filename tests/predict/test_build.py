"""Only known, sane predictor settings build a predictor."""

from dataclasses import dataclass
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"window": 64, "stride": 65}, "predict.stride"),
        ({"window": 0}, "predict.window"),
        ({"window": "wide"}, "predict.window"),
        ({"engine": "abacus"}, "predict.engine"),
        ({"windw": 64}, "predict.windw"),
        ({"stack": [{"kind": "mix", "experts": []}]}, "experts"),
        ({"stack": [{"kind": "mix", "experts": [{"kind": "ngram", "ordr": 3}]}]}, "ordr"),
        ({"stack": [{"kind": "mix", "mode": "linear", "start_weight": 1.5}]}, "start_weight"),
        ({"stack": [{"kind": "ngram", "order": 2, "lowest": 3}]}, "lowest"),
        ({"stack": [{"kind": "tilt", "memory": "1 TB"}]}, "memory"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ArtifactError, match=named) as caught:
        build_predictor(FakeArtifact(GPT(CONFIG), settings))
    assert "\n" not in str(caught.value)
