"""In-place training against a slow reference, and what its freezing by name really freezes."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from parbyte.claims.ttt import (
    BeforeQuantisation,
    InPlace,
    rescored,
    train_before_packing,
    train_in_place,
    trained_names,
)
from parbyte.claims.windows import Windows, sliding
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.recipe import load_recipe

L, S = 8, 4
WINDOWS = Windows(window=L, stride=S, batch=3)
SETTINGS = InPlace(chunk=24, rows=2, lr=0.01, frozen_blocks=1, second_pass=0.5)


class Adam:
    """AdamW without decay, in its formula, with gradients clipped by their global norm."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.k = parameters, 0
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]

    def step(self, loss: Tensor, lr: float, clip: float) -> None:
        grads = torch.autograd.grad(loss, self.parameters)
        norm = torch.sqrt(sum((g**2).sum() for g in grads))
        self.k += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, grads, self.m, self.v, strict=True):
                g = g * min(1.0, clip / (float(norm) + 1e-6))
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                root = (v / (1 - 0.999**self.k)).sqrt() + 1e-8
                p -= lr * m / (1 - 0.9**self.k) / root


def reference(net: nn.Module, stream: Tensor) -> tuple[list[float], nn.Module]:
    """Score and train chunk by chunk; return the ledger and what is left of the model."""
    net = copy.deepcopy(net)
    trained = [net.embed.table, net.blocks[0].mlp.up, *net.blocks[1].parameters()]
    adam, priced = Adam(trained), len(stream) - 1
    num_chunks = -(-priced // 24)

    def train(chunk: int, lr: float) -> None:
        begin, end = chunk * 24, min(chunk * 24 + 24, priced)
        rows = [(s, s + L) for s in range(begin, end - L + 1, L)]
        for first in range(0, len(rows), 2):
            terms = []
            for start, stop in rows[first : first + 2]:
                logits = net.logits(net.hidden(stream[None, start:stop]))[0]
                terms += [
                    logits[j].logsumexp(-1) - logits[j, stream[start + j + 1]] for j in range(L)
                ]
            adam.step(torch.stack(terms).mean(), lr, 1.0)

    out: list[float] = []
    for chunk in range(num_chunks):
        for start in range(0, priced, S):
            length = min(L, priced - start)
            first = 0 if start == 0 else max(length - S, 0)
            if min((start + first) // 24, num_chunks - 1) != chunk:
                continue
            rows = net.logits(net.hidden(stream[None, start : start + length]))[0].log_softmax(-1)
            out += [-float(rows[j, stream[start + j + 1]].detach()) for j in range(first, length)]
        if chunk < num_chunks - 1:
            cosine = (1 + math.cos(math.pi * chunk / (num_chunks - 1))) / 2
            train(chunk, 0.01 * max(0.1, cosine))
    for chunk in range(int(num_chunks * 0.5)):
        train(chunk, 0.001)
    return out, net


def test_in_place_training_equals_its_description(net: nn.Module, stream: Tensor) -> None:
    expected, trained = reference(net, stream)
    found = train_in_place(net, stream, WINDOWS, SETTINGS)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=1e-6)
    for name, parameter in trained.named_parameters():
        assert torch.allclose(net.get_parameter(name), parameter, atol=1e-9), name


def test_rescoring_uses_what_training_left_and_leaves_the_model_alone(
    net: nn.Module, stream: Tensor
) -> None:
    before = copy.deepcopy(net.state_dict())
    _, trained = reference(net, stream)
    found = rescored(net, stream, WINDOWS, SETTINGS)
    expected = sliding(trained, stream, WINDOWS)
    assert found.nats_M.tolist() == pytest.approx(expected.nats_M.tolist(), abs=1e-6)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_freezing_ten_blocks_by_name_freezes_20560_numbers() -> None:
    config = load_recipe("pr1430-base").model
    table = {**vars(config), "vocab_size": 1024, "bos_id": 1}
    model = GPT(ModelConfig(**table), seed=None)
    trained = trained_names(model, 10)
    counts = {name: p.numel() for name, p in model.named_parameters()}
    frozen = sum(n for name, n in counts.items() if name not in trained)
    assert frozen == 20_560
    assert sum(counts.values()) - frozen == 27_046_924


def test_training_before_packing_learns_the_text_it_is_scored_on(
    net: nn.Module, stream: Tensor
) -> None:
    before = sliding(net, stream, WINDOWS).nats_M.mean()
    adapted = train_before_packing(net, stream, WINDOWS, BeforeQuantisation(lr=0.02, rows=4))
    assert sliding(adapted, stream, WINDOWS).nats_M.mean() < before
    assert sliding(net, stream, WINDOWS).nats_M.mean() == before
