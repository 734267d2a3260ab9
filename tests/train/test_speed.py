"""A rehearsal makes steps like training's and says how long they take."""

import dataclasses

import torch

from parbyte.model.config import ModelConfig
from parbyte.train.config import TrainConfig
from parbyte.train.speed import Rehearsal, matmul_flops, steps_in_budget


def test_a_rehearsal_times_both_phases_and_leaves_finite_weights(
    model_config: ModelConfig, train_config: TrainConfig
) -> None:
    looped = dataclasses.replace(model_config, vocab_size=257, bos_id=256, loop=(0, 1, 3))
    rehearsal = Rehearsal(looped, train_config)
    plain_s = rehearsal.step_seconds(2, is_looping=False)
    assert rehearsal.model.visits == (0, 1)
    looping_s = rehearsal.step_seconds(2, is_looping=True)
    assert rehearsal.model.visits == (0, 1) * 4
    assert 0.0 < plain_s < 60.0 and 0.0 < looping_s < 60.0
    assert all(bool(p.isfinite().all()) for p in rehearsal.model.parameters())


def test_a_rehearsal_takes_the_batches_it_is_given(
    model_config: ModelConfig, train_config: TrainConfig
) -> None:
    taken = []
    rehearsal = Rehearsal(dataclasses.replace(model_config, vocab_size=300), train_config)
    make_up = rehearsal._made_up_batch

    def next_batch():
        taken.append(make_up())
        return taken[-1]

    again = Rehearsal(rehearsal.model.config, train_config, next_batch)
    again.step_seconds(1, is_looping=True)
    inputs, targets = taken[0]
    assert len(taken) == 3 and inputs.shape == targets.shape == (4, 64)
    assert (inputs[:, 1:] == targets[:, :-1]).all() and inputs.max() < 300


def test_a_budget_is_shared_between_the_phases() -> None:
    config = TrainConfig(seconds=100.0, loop_at=0.4)
    assert steps_in_budget(config, 0.5, 2.0) == 80 + 30
    assert steps_in_budget(TrainConfig(steps=7), 0.5, 2.0) == 7
    assert steps_in_budget(TrainConfig(seconds=10.0), 9.0, 0.25) == 40


def test_a_matrix_product_has_a_credible_speed() -> None:
    flops = matmul_flops(torch.float32, torch.device("cpu"), 64)
    assert 1e6 < flops < 1e14
