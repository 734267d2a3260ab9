from pathlib import Path

import torch

from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.train.config import TrainConfig
from parbyte.train.state import begin_run
from parbyte.train.step import TrainStep
from parbyte.train.warmup import warm_up


def test_the_warm_up_leaves_no_trace(
    tmp_path: Path, data_folder: Path, model_config: ModelConfig, train_config: TrainConfig
) -> None:
    quiet = Console(quiet=True)
    run = begin_run(model_config, train_config, data_folder, tmp_path, world=World(), console=quiet)
    train_step = TrainStep(run.objective, run.optimizer, train_config, World(), run.device)
    batch = run.loader.next()
    train_step(*batch, 1.0, 0.9)
    before = {name: tensor.clone() for name, tensor in run.tensors().items()}
    place = run.loader.state()
    warm_up(train_step, run.tensors(), train_config, run.model.config, World())
    after = run.tensors()
    assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []
    assert all(p.grad is None for p in run.model.parameters())
    assert run.loader.state() == place
    run.loader.close()
