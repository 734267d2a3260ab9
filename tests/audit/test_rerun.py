"""T10 judges the order of lanes where rounding cannot be taken for a dependence on it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parbyte.audit.artifact_case import artifact_subject
from parbyte.audit.lanes_scorer import LanesScorer
from parbyte.audit.rerun import check_rerun
from parbyte.audit.scorer import Scores, Stream
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.codec.config import CodecConfig
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import read_artifact
from parbyte.predict.ttt import TTTPredictor

CONFIG = ModelConfig(
    vocab_size=257, bos_id=256, num_layers=2, model_dim=32, num_heads=2, num_kv_heads=1, mlp_dim=48
)
TEXT = b"In the beginning God created the heaven and the earth. " * 6


Make = Callable[[dict[str, Any], str], Subject]


@pytest.fixture
def subject_of(pack_toy: Callable[..., bytes]) -> Make:
    def make(stage: dict[str, Any], dtype: str) -> Subject:
        predict = {"window": 32, "stride": 16, "engine": "torch", "dtype": dtype, "stack": [stage]}
        artifact = read_artifact(pack_toy(CONFIG, predict, noise=0.1))
        documents = [np.frombuffer(TEXT, np.uint8).astype(np.uint16)]
        return artifact_subject("toy", artifact, CodecConfig(), documents, TEXT)

    return make


def test_what_rounds_to_bfloat16_is_put_in_another_order_in_float32(
    subject_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of({"kind": "ttt", "lr": 1e-3}, "bfloat16")
    assert subject.precise is not None
    coarse, precise = (s.score(subject.sample_N) for s in (subject.scorer, subject.precise))
    assert 1e-4 < np.nanmax(np.abs(coarse.nats_N - precise.nats_N)) < 0.1
    asked, reorder = [], LanesScorer.score_reordered

    def reorder_and_note(self: LanesScorer, stream_N: Stream) -> Scores | None:
        asked.append(self)
        return reorder(self, stream_N)

    monkeypatch.setattr(LanesScorer, "score_reordered", reorder_and_note)
    assert check_rerun(subject, AuditConfig()).passed
    assert asked == [subject.precise]


def test_float32_is_judged_as_it_is(subject_of: Make) -> None:
    assert subject_of({"kind": "ttt"}, "float32").precise is None


def test_an_order_that_is_learned_from_is_found_in_bfloat16(
    subject_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe = TTTPredictor.observe

    def observe_first_lane(self: TTTPredictor, chunk_BT: torch.Tensor) -> None:
        observe(self, chunk_BT[:1].expand_as(chunk_BT))

    monkeypatch.setattr(TTTPredictor, "observe", observe_first_lane)
    (finding,) = check_rerun(subject_of({"kind": "ttt"}, "bfloat16"), AuditConfig()).findings
    assert "in another order" in finding.evidence
