"""What a training begins with."""

from dataclasses import replace
from pathlib import Path

import torch

from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.train.config import TrainConfig
from parbyte.train.state import begin_run

GATE = "embed.smear.gate"


def first_weights(
    model_config: ModelConfig, train_config: TrainConfig, data_folder: Path, folder: Path
) -> dict[str, torch.Tensor]:
    quiet = Console(quiet=True)
    run = begin_run(model_config, train_config, data_folder, folder, world=World(), console=quiet)
    run.loader.close()
    return dict(run.model.state_dict())


def test_the_static_smear_starts_with_the_share_it_is_given_and_all_else_as_before(
    tmp_path: Path, data_folder: Path, model_config: ModelConfig, train_config: TrainConfig
) -> None:
    usual = first_weights(model_config, train_config, data_folder, tmp_path)
    halved = replace(train_config, smear_start=0.0)
    half = first_weights(model_config, halved, data_folder, tmp_path)
    assert torch.equal(half[GATE].sigmoid(), torch.full((32,), 0.5))
    shape = replace(model_config, vocab_size=257, bos_id=256)
    untold = GPT(shape, seed=train_config.seed).state_dict()
    assert [name for name in untold if not torch.equal(untold[name], usual[name])] == []
    assert [name for name in usual if not torch.equal(usual[name], half[name])] == [GATE]
