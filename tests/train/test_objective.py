"""Heads for tokens further ahead: their loss, their learning, and that none is left behind."""

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.text.batches import IGNORED
from parbyte.train.config import TrainConfig
from parbyte.train.loop import train
from parbyte.train.objective import Objective, further
from parbyte.train.optim import build_optimizer
from parbyte.train.state import begin_run

SHAPE = ModelConfig(
    vocab_size=50,
    num_layers=2,
    model_dim=32,
    num_heads=2,
    num_kv_heads=1,
    mlp_dim=48,
    softcap=5.0,
    logit_scale=2.0,
)


def random_objective(num_heads: int, weight: float) -> Objective:
    objective = Objective(GPT(SHAPE, seed=1), num_heads, weight)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return objective


def random_batch(rows: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(50, (rows, length + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:].clone()


def slow_nats(hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor, ahead: int) -> float:
    """Mean nats of the targets `ahead` positions later, one position at a time."""
    nats = []
    for row in range(targets_BT.shape[0]):
        for place in range(targets_BT.shape[1] - ahead):
            target = int(targets_BT[row, place + ahead])
            if target == IGNORED:
                continue
            logits = 2.0 * (head_VD @ hidden_BTD[row, place])
            logits = 5.0 * torch.tanh(logits / 5.0)
            nats.append(float(torch.logsumexp(logits, 0) - logits[target]))
    return math.fsum(nats) / len(nats)


@pytest.mark.parametrize(("num_heads", "length"), [(1, 9), (2, 9), (3, 5)])
def test_the_loss_equals_its_definition_in_float64(num_heads: int, length: int) -> None:
    objective = random_objective(num_heads, weight=0.3)
    inputs_BT, targets_BT = random_batch(3, length)
    targets_BT[2, -2:] = IGNORED
    loss, nats = objective(inputs_BT, targets_BT)
    with torch.no_grad():
        hidden_BTD = objective.model.hidden(inputs_BT).double()
    table_VD = objective.model.embed.table.detach().double()
    first = slow_nats(hidden_BTD, table_VD, targets_BT, 0)
    later = [
        slow_nats(hidden_BTD, head.detach().double(), targets_BT, k)
        for k, head in enumerate(objective.heads, 1)
    ]
    assert nats.item() == pytest.approx(first, abs=2e-6)
    assert loss.item() == pytest.approx(first + 0.3 * sum(later) / num_heads, abs=4e-6)


def test_targets_further_ahead_end_with_the_row() -> None:
    targets_BT = torch.tensor([[1, 2, 3, 4]])
    assert further(targets_BT, 2).tolist() == [[3, 4, IGNORED, IGNORED]]


def test_heads_of_weight_zero_change_nothing() -> None:
    batch = random_batch(2, 12)
    gradients = []
    for num_heads in (0, 2):
        objective = random_objective(num_heads, weight=0.0)
        loss, nats = objective(*batch)
        assert loss.item() == nats.item()
        loss.backward()
        gradients.append({n: p.grad for n, p in objective.model.named_parameters()})
    assert [n for n, g in gradients[0].items() if not torch.equal(g, gradients[1][n])] == []


def test_every_parameter_is_moved_by_exactly_one_optimizer(train_config: TrainConfig) -> None:
    objective = random_objective(2, weight=0.1)
    optimizer = build_optimizer(objective, objective.roles(), train_config, World())
    wanted = {id(p) for p in objective.parameters() if p.requires_grad}
    muon = [p for stack in optimizer._muon._stacks for p in stack.parameters]
    adamw = [p for group in optimizer._adamw._torch.param_groups for p in group["params"]]
    moved = Counter(id(p) for p in [*muon, *adamw])
    assert moved.keys() == wanted and set(moved.values()) == {1}
    assert {id(head) for head in objective.heads} <= {id(p) for p in muon}
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    objective(*random_batch(2, 12))[0].backward()
    optimizer.step_(1.0, 0.9)
    still = [n for n, p in objective.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_heads_learn_and_teach_the_network_but_are_not_in_the_weights(
    tmp_path: Path, data_folder: Path, model_config: ModelConfig, train_config: TrainConfig
) -> None:
    quiet = Console(quiet=True)
    weights = []
    for name, heads in [("plain", 0), ("ahead", 2)]:
        config = dataclasses.replace(train_config, mtp_heads=heads, mtp_weight=0.2)
        result = train(
            model_config, config, data_folder, tmp_path / name, world=World(), console=quiet
        )
        weights.append(result.weights)
    assert weights[0].keys() == weights[1].keys()
    assert not torch.equal(weights[0]["blocks.0.mlp.up"], weights[1]["blocks.0.mlp.up"])
    config = dataclasses.replace(train_config, mtp_heads=2, mtp_weight=0.2)
    run = begin_run(model_config, config, data_folder, tmp_path / "x", world=World(), console=quiet)
    run.loader.close()
    assert {"heads.0", "heads.1"} <= run.tensors().keys()
    assert not any("heads" in name for name in run.weights())


def test_more_heads_than_the_window_has_tokens_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"'train\.mtp_heads' is 3.*train\.seq_len = 4"):
        TrainConfig(mtp_heads=3, seq_len=4, batch_tokens=4)
