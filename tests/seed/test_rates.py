"""The twins' `ttt` learns at the rate that is best on development text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parbyte.base.log import Console
from parbyte.base.settings import read_table
from parbyte.codec.config import CodecConfig
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import Artifact, read_artifact
from parbyte.predict.adapter_config import TTTConfig
from parbyte.scoring import measure_documents
from parbyte.seed import rates
from parbyte.seed.rates import SHARES, choose_learning, stage_at
from parbyte.seed.rungs import walk

CONFIG = ModelConfig(
    vocab_size=257, bos_id=256, num_layers=1, model_dim=32, num_heads=2, num_kv_heads=1, mlp_dim=48
)
PREDICT = {**walk(32, 16), "engine": "torch"}
DOCUMENT = np.frombuffer(b"abcdefgh" * 20, np.uint8).astype(np.uint16)


@pytest.fixture(scope="module")
def artifact(pack_toy: Callable[..., bytes]) -> Artifact:
    return read_artifact(pack_toy(CONFIG, PREDICT, noise=0.0))


@pytest.mark.parametrize(("shares", "best"), [(SHARES, 1.0), ((3e4, 1.0, 0.03), 1.0)])
def test_the_best_rate_on_development_text_is_kept(
    artifact: Artifact, shares: tuple[float, ...], best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "SHARES", shares)
    monkeypatch.setattr(rates, "split_documents", lambda *_: iter([DOCUMENT]))
    found = choose_learning(Path(), artifact, PREDICT, CodecConfig())
    assert [rate["share"] for rate in found.rates] == list(shares)
    for rate in found.rates:
        learner = replace(artifact, predict={**PREDICT, "stack": [stage_at(rate["share"])]})
        ledger, _ = measure_documents(learner, [DOCUMENT], CodecConfig(), Console(quiet=True))
        assert rate["measured_bpb"] == ledger.bpb
    assert min(found.rates, key=lambda rate: rate["measured_bpb"])["share"] == best
    assert found.stage == stage_at(best)


def test_only_the_beginning_of_the_text_is_read(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "SHARES", (1.0,))
    documents = [DOCUMENT] * 15
    monkeypatch.setattr(rates, "split_documents", lambda *_: iter(documents))
    assert choose_learning(Path(), artifact, PREDICT, CodecConfig()).tokens == 2048


def test_the_whole_share_is_the_stage_as_it_is() -> None:
    assert read_table(TTTConfig, stage_at(1.0), where="test", section="stage") == TTTConfig()
