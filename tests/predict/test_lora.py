"""Adapters of low rank: each lane and each document by itself, against a float64 reference."""

import dataclasses

import pytest
import torch
from torch import Tensor
from toys import BOS, PARTS, STRIDE, WINDOW, exact_copy, inputs_of, rows, text, toy_model

from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import LoraConfig
from parbyte.predict.lora import LoraPredictor
from parbyte.predict.neural import NeuralPredictor

QUICK = LoraConfig(rank=3, alpha=6.0, lr=2e-2, eps=1e-5)


def lora(settings: LoraConfig = QUICK, model: GPT | None = None) -> LoraPredictor:
    return LoraPredictor(model or toy_model(**PARTS), settings, window=WINDOW, stride=STRIDE)


def with_documents(num_lanes: int, length: int) -> Tensor:
    tokens_BN = text(num_lanes, length)
    tokens_BN[0, 5] = BOS
    tokens_BN[-1, 7] = BOS
    tokens_BN[-1, 14] = BOS
    return tokens_BN


class Reference:
    """One lane of one document at a time, the adapted matrices written out, in float64."""

    def __init__(self, model: GPT, settings: LoraConfig) -> None:
        self.model, self.settings = exact_copy(model).requires_grad_(False), settings
        fresh = lora(settings, model)
        fresh.observe(text(1, 1))
        adapters = fresh._adapters
        assert adapters is not None
        self.fresh = [
            (key, pair[0].fresh.double(), pair[1].fresh.double())
            for key, pair in adapters._moving.items()
        ]
        self.begin()

    def begin(self) -> None:
        self.tensors = [t.clone().requires_grad_(True) for _, d, u in self.fresh for t in (d, u)]
        self.first = [torch.zeros_like(t) for t in self.tensors]
        self.second = [torch.zeros_like(t) for t in self.tensors]
        self.steps = 0

    def log_probs(self, inputs_N: Tensor) -> Tensor:
        scale = self.settings.alpha / self.settings.rank
        extra = {
            key: scale * self.tensors[2 * i + 1] @ self.tensors[2 * i]
            for i, (key, _, _) in enumerate(self.fresh)
        }
        for layer, block in enumerate(self.model.blocks):

            def adapted(weights, layer=layer):
                changes = {p: getattr(weights, p) + extra[layer, p] for p in self.settings.parts}
                return weights._replace(**changes)

            block.lane_weights = adapted
        return self.model.logits(self.model.hidden(inputs_N[None]))[0].log_softmax(-1)

    def learn(self, inputs_N: Tensor, labels_T: Tensor) -> None:
        rows_TV = self.log_probs(inputs_N)[-len(labels_T) :]
        loss = -rows_TV.gather(1, labels_T[:, None]).mean()
        grads = torch.autograd.grad(loss, self.tensors)
        self.steps += 1
        settings = self.settings
        with torch.no_grad():
            for tensor, grad, first, second in zip(
                self.tensors, grads, self.first, self.second, strict=True
            ):
                first.mul_(settings.beta1).add_((1 - settings.beta1) * grad)
                second.mul_(settings.beta2).add_((1 - settings.beta2) * grad**2)
                mean = first / (1 - settings.beta1**self.steps)
                root = (second / (1 - settings.beta2**self.steps)).sqrt()
                tensor.mul_(1 - settings.lr * settings.weight_decay)
                tensor.sub_(settings.lr * mean / (root + settings.eps))


@pytest.mark.parametrize("by_steps", [False, True])
def test_rows_are_those_of_a_float64_reference_without_documents(by_steps: bool) -> None:
    settings = dataclasses.replace(QUICK, weight_decay=0.3, epochs=2, parts=("qkv", "down"))
    model, tokens_BN = toy_model(**PARTS), text(1, 4 * STRIDE)
    reference, inputs_N = Reference(model, settings), inputs_of(tokens_BN)[0]
    expected = []
    for start in range(0, 4 * STRIDE, STRIDE):
        left = start - min(start, WINDOW - STRIDE)
        stop = start + STRIDE
        expected.append(reference.log_probs(inputs_N[left:stop])[start - left :].detach())
        for _ in range(settings.epochs):
            reference.learn(inputs_N[left:stop], tokens_BN[0, start:stop])
    got = rows(lora(settings, model), tokens_BN, by_steps=by_steps)[0]
    torch.testing.assert_close(got.double(), torch.cat(expected), atol=2e-3, rtol=0)
    plain = rows(NeuralPredictor(model, window=WINDOW, stride=STRIDE), tokens_BN)[0]
    assert (got - plain)[STRIDE:].abs().max() > 0.05


@pytest.mark.parametrize("by_steps", [False, True])
def test_lanes_together_are_lanes_alone(by_steps: bool) -> None:
    tokens_BN = with_documents(3, 5 * STRIDE)
    together = rows(lora(), tokens_BN, by_steps=by_steps)
    alone = [rows(lora(), lane_N[None], by_steps=by_steps)[0] for lane_N in tokens_BN]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)


def test_a_document_begins_with_the_plain_network_in_mid_chunk_and_in_the_next() -> None:
    model = toy_model(**PARTS, document_mask=True)
    tokens_BN = text(1, 4 * STRIDE)
    tokens_BN[0, 2 * STRIDE + 1] = BOS  # the third chunk's second token
    learned = rows(lora(model=model), tokens_BN)[0]
    plain = rows(NeuralPredictor(model, window=WINDOW, stride=STRIDE), tokens_BN)[0]
    inside = slice(2 * STRIDE + 2, 3 * STRIDE)
    torch.testing.assert_close(learned[inside], plain[inside], atol=1e-5, rtol=0)
    before = slice(2 * STRIDE, 2 * STRIDE + 2)
    assert not torch.allclose(learned[before], plain[before], atol=1e-2)
    assert not torch.allclose(learned[3 * STRIDE :], plain[3 * STRIDE :], atol=1e-3)


def test_what_a_document_taught_is_gone_in_the_next() -> None:
    model = toy_model(**PARTS, document_mask=True)
    one_BN, two_BN = text(1, 5 * STRIDE), text(1, 5 * STRIDE)
    two_BN[0, :STRIDE] = text(1, STRIDE, seed=9)
    for tokens_BN in (one_BN, two_BN):
        tokens_BN[0, 2 * STRIDE + 1] = BOS
    one, two = rows(lora(model=model), one_BN)[0], rows(lora(model=model), two_BN)[0]
    assert not torch.allclose(one[STRIDE : 2 * STRIDE], two[STRIDE : 2 * STRIDE], atol=1e-3)
    after = slice(2 * STRIDE + 2, None)
    torch.testing.assert_close(one[after], two[after], atol=1e-5, rtol=0)


def test_an_ended_lane_learns_nothing() -> None:
    predictor = lora()
    tokens_BN = text(2, 2 * STRIDE)
    tokens_BN[1] = BOS
    for chunk_BT in tokens_BN.split(STRIDE, dim=1):
        predictor.observe(chunk_BT)
    assert predictor._adapters is not None
    for pair in predictor._adapters._moving.values():
        for part in pair:
            assert torch.equal(part.value[1], part.fresh)
        assert not torch.equal(pair[1].value[0], pair[1].fresh)


def test_a_phase_trains_the_network_once_its_border_is_passed_and_restore_undoes_it() -> None:
    model = toy_model(**PARTS)
    settings = dataclasses.replace(QUICK, phases=(2 * STRIDE, 100), phase_lr=0.05)
    predictor, tokens_BN = lora(settings, model), text(1, 4 * STRIDE)
    before = {name: value.clone() for name, value in model.named_parameters()}

    def is_pristine() -> bool:
        now = dict(predictor._model.named_parameters())
        return all(torch.equal(now[name], before[name]) for name in before)

    for number, chunk_BT in enumerate(tokens_BN.split(STRIDE, dim=1)):
        predictor.observe(chunk_BT)
        assert is_pristine() == (number < 1)
    predictor.restore()
    assert is_pristine()


def test_a_phase_is_sgd_on_everything_behind_it() -> None:
    model = toy_model(**PARTS)
    settings = dataclasses.replace(
        QUICK, phases=(8 * STRIDE,), phase_lr=0.02, phase_momentum=0.5, phase_clip=0.0
    )
    predictor, tokens_BN = lora(settings, model), text(2, 4 * STRIDE)
    for chunk_BT in tokens_BN.split(STRIDE, dim=1):
        predictor.observe(chunk_BT)
    exact, inputs_BN = exact_copy(model), inputs_of(tokens_BN)
    memory = [torch.zeros_like(p) for p in exact.parameters()]
    for start, rate in (
        (0, 0.02),
        (WINDOW, 0.02 * 0.5 * (1 + torch.tensor(0.75 * torch.pi).cos())),
    ):
        span = slice(start, start + WINDOW)
        rows_BTV = exact.logits(exact.hidden(inputs_BN[:, span])).log_softmax(-1)
        loss = -rows_BTV.gather(2, tokens_BN[:, span, None]).mean()
        grads = torch.autograd.grad(loss, list(exact.parameters()))
        with torch.no_grad():
            for parameter, grad, held in zip(exact.parameters(), grads, memory, strict=True):
                held.mul_(0.5).add_(grad)
                parameter.sub_(float(rate) * held)
    for got, expected in zip(predictor._model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(got.double(), expected.detach(), atol=1e-5, rtol=0)


def test_restore_is_bit_exact() -> None:
    settings = dataclasses.replace(QUICK, phases=(STRIDE,))
    predictor, tokens_BN = lora(settings), with_documents(2, 4 * STRIDE)
    first = rows(predictor, tokens_BN, by_steps=True)
    assert torch.equal(rows(predictor, tokens_BN, by_steps=True), first)
