"""Compile and warm up outside the clock, and leave no trace."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.train.config import TrainConfig
from parbyte.train.step import TrainStep

_WARMUP_STEPS = 3


def warm_up(
    train_step: TrainStep,
    tensors: Mapping[str, Tensor],
    config: TrainConfig,
    model_config: ModelConfig,
    world: World,
) -> None:
    """Make a few steps on made-up batches, then put every tensor back bit for bit.

    tensors: all live state that a step may change. The loader is not touched. A model with a loop
    is compiled without it and with it, if the run will need both.
    """
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    shape = (config.batch_tokens // config.seq_len // world.size, config.seq_len)
    generator = np.random.Generator(np.random.PCG64(0))
    phases = [False, True] if model_config.loop and config.loop_at > 0 else [True]
    for is_looping in phases:
        for _ in range(_WARMUP_STEPS):
            tokens = generator.integers(model_config.vocab_size, size=shape, dtype=np.int64)
            tokens[:, 0] = model_config.bos_id
            targets = np.roll(tokens, -1, axis=1)
            train_step(tokens, targets, 1.0, config.momentum, is_looping=is_looping)
    for name, tensor in tensors.items():
        tensor.detach().copy_(before[name])
        assert torch.equal(tensor, before[name]), f"'{name}' keeps a trace of the warm-up"
