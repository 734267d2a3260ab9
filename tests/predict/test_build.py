"""Only known, sane predictor settings build a predictor."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.build import build_predictor, build_probed
from parbyte.text.byte_tokenizer import ByteTokenizer

CONFIG = ModelConfig(vocab_size=9, bos_id=0, model_dim=8, num_heads=1, num_kv_heads=1, rope_dims=2)


@dataclass
class FakeArtifact:
    model: GPT
    predict: dict[str, Any]
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    prior_N: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))


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


ADAPTED: dict[str, dict[str, Any]] = {
    "carry": {"carry": True},
    "ttt": {"stack": [{"kind": "ttt"}]},
    "lora": {"stack": [{"kind": "lora"}]},
    "slot": {"stack": [{"kind": "slot"}]},
    "slot, lbfgs": {"stack": [{"kind": "slot", "optimizer": "lbfgs", "steps": 2}]},
}


@pytest.mark.parametrize("settings", ADAPTED.values(), ids=ADAPTED)
def test_the_dtype_is_the_law_of_a_network_that_adapts_too(settings: dict[str, Any]) -> None:
    tokens_BT = torch.randint(1, 9, (2, 24), generator=torch.Generator().manual_seed(0))
    rows = {}
    for dtype in ("float32", "bfloat16"):
        walk = {"window": 8, "stride": 4, "dtype": dtype}
        predictor = build_predictor(FakeArtifact(GPT(CONFIG), {**walk, **settings}))
        by_chunks, by_steps, last_B = [], [], torch.zeros(2, dtype=torch.int64)
        for chunk_BT in tokens_BT.split(4, dim=1):
            by_chunks.append(predictor.log_probs(chunk_BT))
            for token_B in chunk_BT.T:
                by_steps.append(predictor.step(last_B))
                last_B = token_B
            predictor.observe(chunk_BT)
        rows[dtype] = torch.cat(by_chunks, dim=1)
        torch.testing.assert_close(torch.stack(by_steps, dim=1), rows[dtype], atol=2e-2, rtol=0)
    assert rows["bfloat16"].dtype == torch.float32
    assert not torch.equal(rows["bfloat16"], rows["float32"])
    torch.testing.assert_close(rows["bfloat16"], rows["float32"], atol=5e-2, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [*ADAPTED.values(), {"stack": [{"kind": "temperature"}]}, {"stack": [{"kind": "etlb"}]}],
)
def test_only_the_bare_network_has_a_twin(settings: dict[str, Any]) -> None:
    artifact = FakeArtifact(GPT(CONFIG), {})
    assert build_predictor(artifact).twin() is not None
    assert build_probed(artifact)[0].twin() is None
    assert build_predictor(FakeArtifact(GPT(CONFIG), settings)).twin() is None


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
        ({"stack": [{"kind": "mix", "experts": []}]}, "experts"),
        ({"stack": [{"kind": "mix", "experts": [{"kind": "ngram", "ordr": 3}]}]}, "ordr"),
        ({"stack": [{"kind": "mix", "mode": "linear", "start_weight": 1.5}]}, "start_weight"),
        ({"stack": [{"kind": "ngram", "order": 2, "lowest": 3}]}, "lowest"),
        ({"stack": [{"kind": "tilt", "memory": "1 TB"}]}, "memory"),
        ({"stack": [{"kind": "ngram", "learn": "word"}]}, "learn"),
        (
            {"engine": "portable", "stack": [{"kind": "sse"}, {"kind": "ngram", "learn": "chunk"}]},
            r"predict.stack\[1\].learn",
        ),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ArtifactError, match=named) as caught:
        build_predictor(FakeArtifact(GPT(CONFIG), settings))
    assert "\n" not in str(caught.value)
