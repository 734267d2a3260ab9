"""Documents packed end to end give the training that a mask gives; the kernel is in test_gpu.py."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.kernels.attention import causal_attention
from parbyte.model import attention
from parbyte.model.config import ModelConfig
from parbyte.train import step
from parbyte.train.config import TrainConfig
from parbyte.train.loop import train


def attend_one_by_one(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, ends_E: Tensor) -> Tensor:
    """Attend to each document alone."""
    joined = [x.flatten(0, 1).transpose(0, 1)[None] for x in (q_BTHK, k_BTGK, v_BTGK)]
    places = list(zip(ends_E.tolist(), ends_E.tolist()[1:], strict=False))
    parts = [causal_attention(*(x[:, :, a:b] for x in joined), mask=None) for a, b in places]
    return torch.cat(parts, 2)[0].transpose(0, 1).reshape(q_BTHK.shape)


def test_packed_documents_train_as_masked_ones_do(
    data_folder: Path,
    model_config: ModelConfig,
    train_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(train_config, steps=60, micro_batch_tokens=128)
    losses = []
    for name, has_mask in (("masked", True), ("packed", True), ("open", False)):
        if name == "packed":
            monkeypatch.setattr(step, "can_pack_documents", lambda device, dtype: True)
            monkeypatch.setattr(attention, "packed_attention", attend_one_by_one)
        model = dataclasses.replace(model_config, document_mask=has_mask)
        result = train(
            model, config, data_folder, tmp_path / name, world=World(), console=Console(quiet=True)
        )
        losses.append(result.final_loss)
    masked, packed, unmasked = losses
    assert packed == pytest.approx(masked, rel=1e-5)
    assert abs(packed - masked) < 0.01 * abs(unmasked - masked)
