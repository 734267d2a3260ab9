"""Test-time training: one update is the textbook's, it comes after the score, and it is undone."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor
from toys import (
    BOS,
    PARTS,
    STRIDE,
    VOCAB,
    WINDOW,
    Artifact,
    exact_copy,
    inputs_of,
    rows,
    text,
    toy_model,
)
from twins import BankModel

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, role_of
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.build import build_predictor
from parbyte.predict.config import PredictConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.trained import check_by_counting, choose_trained
from parbyte.predict.ttt import TTTPredictor

QUICK = {"lr": 3e-2, "embed_lr": 2e-2, "scalar_lr": 1e-2}


def ttt(settings: TTTConfig, model: GPT | None = None) -> TTTPredictor:
    model = model or toy_model(**PARTS)
    return TTTPredictor(model, settings, window=WINDOW, stride=STRIDE)


def rate_of(name: str, settings: TTTConfig) -> float:
    role = role_of(name)
    if role == Role.SCALAR:
        return settings.scalar_lr
    return settings.embed_lr if role in (Role.EMBED, Role.TABLE) else settings.lr


class Reference:
    """Chunk by chunk in float64, every formula written out."""

    def __init__(self, model: GPT, settings: TTTConfig) -> None:
        self.model, self.settings = exact_copy(model), settings
        self.first = {n: torch.zeros_like(p) for n, p in self.model.named_parameters()}
        self.second = {n: torch.zeros_like(p) for n, p in self.model.named_parameters()}
        self.steps = 0

    def loss(self, stream_BN: Tensor, start: int, stop: int) -> Tensor:
        inputs_BN = inputs_of(stream_BN)
        left = start - min(start, WINDOW - STRIDE)
        hidden = self.model.hidden(inputs_BN[:, left:stop])[:, start - left :]
        log_probs = self.model.logits(hidden).log_softmax(-1)
        nats = -log_probs.gather(2, stream_BN[:, start:stop, None])[..., 0]
        is_padding = (stream_BN[:, start:stop] == BOS) & (inputs_BN[:, start:stop] == BOS)
        return nats[~is_padding].mean()

    def learn(self, stream_BN: Tensor, start: int, stop: int) -> None:
        grads = torch.autograd.grad(
            self.loss(stream_BN, start, stop), list(self.model.parameters())
        )
        self.steps += 1
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        clip = self.settings.clip
        factor = min(1.0, clip / norm) if clip else 1.0
        names = [name for name, _ in self.model.named_parameters()]
        with torch.no_grad():
            for name, parameter, grad in zip(names, self.model.parameters(), grads, strict=True):
                self.move(name, parameter, grad * factor, self.rate(name, start))

    def rate(self, name: str, start: int) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return rate_of(name, settings)
        share = min(1.0, start / settings.horizon)
        return rate_of(name, settings) * (1 + math.cos(math.pi * share)) / 2

    def move(self, name: str, parameter: Tensor, grad: Tensor, rate: float) -> None:
        settings, first, second = self.settings, self.first[name], self.second[name]
        if role_of(name) != Role.SCALAR:
            parameter.mul_(1 - rate * settings.weight_decay)
        if settings.optimizer == "sgd":
            first.mul_(settings.momentum).add_(grad)
            parameter.sub_(rate * first)
            return
        first.mul_(settings.beta1).add_((1 - settings.beta1) * grad)
        second.mul_(settings.beta2).add_((1 - settings.beta2) * grad**2)
        mean = first / (1 - settings.beta1**self.steps)
        square = second / (1 - settings.beta2**self.steps)
        parameter.sub_(rate * mean / (square.sqrt() + settings.eps))


VARIANTS = {
    # A wide eps: where a gradient is nothing but rounding, Adam would blow it up.
    "adam": TTTConfig(**QUICK, eps=1e-4),
    "adam, every key": TTTConfig(
        **QUICK,
        beta1=0.5,
        beta2=0.8,
        eps=1e-3,
        weight_decay=0.7,
        clip=0.3,
        schedule="cosine",
        horizon=24,
        epochs=2,
    ),
    "sgd": TTTConfig(
        optimizer="sgd", lr=0.01, embed_lr=0.02, scalar_lr=0.005, momentum=0.8, weight_decay=0.3
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_are_those_of_a_float64_reference(name: str) -> None:
    settings, model = VARIANTS[name], toy_model(**PARTS)
    predictor, reference = ttt(settings, model), Reference(model, settings)
    stream_BN = text(2, 4 * STRIDE)
    stream_BN[1, 10:] = BOS  # an ended lane: its last token is followed by BOS after BOS
    for start in range(0, 4 * STRIDE, STRIDE):
        predictor.observe(stream_BN[:, start : start + STRIDE])
        for _ in range(settings.epochs):
            reference.learn(stream_BN, start, start + STRIDE)
    for (label, got), expected in zip(
        predictor._model.named_parameters(), reference.model.parameters(), strict=True
    ):
        moved = float((got - reference_start(model, label)).detach().abs().max())
        assert moved > 1e-4, f"{label} did not move"
        torch.testing.assert_close(got.double(), expected, atol=0.03 * moved, rtol=0, msg=label)


def reference_start(model: GPT, name: str) -> Tensor:
    return dict(model.named_parameters())[name]


def test_muon_moves_matrices_along_an_orthogonal_direction_and_the_rest_by_adam() -> None:
    model = toy_model()
    settings = TTTConfig(**QUICK, optimizer="muon", momentum=0.0)
    predictor, adam = ttt(settings, model), Reference(model, settings)
    stream_BN = text(2, STRIDE)
    predictor.observe(stream_BN)
    adam.settings = dataclasses.replace(settings, optimizer="adam")
    adam.learn(stream_BN, 0, STRIDE)
    moved = dict(predictor._model.named_parameters())
    for (name, before), by_adam in zip(
        model.named_parameters(), adam.model.parameters(), strict=True
    ):
        step = (before - moved[name]).double()
        if name.endswith(("attn.v", "attn.out", "mlp.up", "mlp.down")):
            grad = adam.first[name] / (1 - settings.beta1)
            rows_R, columns = grad.shape
            u, s, v = torch.linalg.svd(grad, full_matrices=False)
            rank = int((s > 1e-3 * s[0]).sum())
            scale = settings.lr * math.sqrt(max(1.0, rows_R / columns))
            polar = u[:, :rank] @ v[:rank]
            # Newton-Schulz takes large singular values to 0.7 .. 1.2 and not to 1.
            cosine = (step * polar).sum() / (step.norm() * polar.norm())
            assert cosine > 0.9, name
            assert 0.3 * scale < torch.linalg.matrix_norm(step, 2) < 1.3 * scale, name
        elif role_of(name) in (Role.EMBED, Role.SCALAR):
            torch.testing.assert_close(moved[name].double(), by_adam, atol=1e-4, rtol=0, msg=name)


def test_the_first_chunk_is_priced_by_the_artifact_and_the_next_is_not() -> None:
    model, tokens_BN = toy_model(), text(2, 2 * STRIDE)
    plain = rows(NeuralPredictor(model, window=WINDOW, stride=STRIDE), tokens_BN)
    learned = rows(ttt(TTTConfig(**QUICK), model), tokens_BN)
    assert torch.equal(plain[:, :STRIDE], learned[:, :STRIDE])
    assert not torch.allclose(plain[:, STRIDE:], learned[:, STRIDE:], atol=1e-3)


@pytest.mark.parametrize("by_steps", [False, True])
@pytest.mark.parametrize("flipped", [3, 4, 7, 8, 11])
def test_a_flip_at_a_chunk_border_moves_no_row_up_to_it(flipped: int, by_steps: bool) -> None:
    predictor = ttt(TTTConfig(**QUICK, epochs=3))
    tokens_BN = text(2, 3 * STRIDE)
    other_BN = tokens_BN.clone()
    other_BN[:, flipped] = tokens_BN[:, flipped] % (VOCAB - 1) + 1
    before = rows(predictor, tokens_BN, by_steps=by_steps)
    after = rows(predictor, other_BN, by_steps=by_steps)
    assert torch.equal(before[:, : flipped + 1], after[:, : flipped + 1])
    if flipped + 1 < 3 * STRIDE:
        assert not torch.equal(before[:, flipped + 1], after[:, flipped + 1])


def test_the_artifacts_model_is_never_touched_and_restore_gives_it_back_bit_for_bit() -> None:
    model = toy_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictor = ttt(TTTConfig(**QUICK, clip=1.0, epochs=2), model)
    tokens_BN = text(2, 3 * STRIDE)
    first = rows(predictor, tokens_BN, by_steps=True)
    assert torch.equal(rows(predictor, tokens_BN, by_steps=True), first)
    predictor.observe(tokens_BN[:, :STRIDE])
    predictor.restore()
    for name, value in predictor._model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) and not value.requires_grad, name


def test_a_chunk_of_padding_teaches_nothing() -> None:
    predictor = ttt(TTTConfig(**QUICK))
    predictor.observe(torch.full((2, STRIDE), BOS))
    for name, value in predictor._model.named_parameters():
        assert torch.equal(value, reference_start(predictor._artifact_model, name)), name


def test_what_learns_is_counted_by_the_shapes_that_hold_it() -> None:
    shape = {"model_dim": 16, "num_heads": 2, "mlp_dim": 24, "num_layers": 3}
    model = toy_model(**shape, **PARTS)
    block = 4 * 16 * 16 + 2 * 24 * 16 + 2 + 2 * 16 + 2 * 16  # matrices, gains, scales, mix
    tables = VOCAB * 16 + 11 * 8
    vectors = 3 * (2 + 2 * 16 + 2 * 16) + 16 + 1 + VOCAB  # blocks, smear, bigram scale, bias
    total = sum(p.numel() for p in model.parameters())
    for train, last_blocks, expected in [
        ("all", 1, total),
        ("last", 1, block),
        ("last", 2, 2 * block),
        ("no_embed", 1, total - tables),
        ("scalars", 1, vectors),
    ]:
        chosen = choose_trained(model, train, last_blocks)
        assert sum(p.numel() for p in chosen.values()) == expected, train
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected, train


@pytest.mark.parametrize("train", ["last", "no_embed", "scalars"])
def test_what_is_frozen_stays_bit_for_bit_and_what_learns_moves(train: str) -> None:
    model = toy_model(**PARTS)
    predictor = ttt(TTTConfig(**QUICK, train=train, optimizer="muon", weight_decay=0.5), model)
    predictor.observe(text(2, STRIDE))
    predictor.observe(text(2, STRIDE, seed=6))
    chosen = choose_trained(copy.deepcopy(model), train, 1)
    for name, value in predictor._model.named_parameters():
        assert torch.equal(value, reference_start(model, name)) == (name not in chosen), name


def test_freezing_by_name_is_caught_by_counting() -> None:
    model = BankModel(num_layers=11, model_dim=16, mlp_dim=24)
    model.freeze_by_name(10)
    config = dataclasses.replace(toy_model().config, num_layers=11)
    with pytest.raises(AssertionError, match="frozen"):
        check_by_counting(model, config, num_blocks=1)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    check_by_counting(model, config, num_blocks=11)


def test_settings_build_it_and_bad_ones_are_named() -> None:
    model = toy_model()
    table = {"window": 8, "stride": 4, "stack": [{"kind": "ttt", "lr": 0.1}]}
    artifact = Artifact(model, table)
    assert isinstance(build_predictor(artifact), TTTPredictor)
    for change, named in [
        ({"schedule": "cosine"}, "horizon"),
        ({"train": "last", "last_blocks": 3}, "last_blocks"),
        ({"optimizer": "lion"}, "optimizer"),
    ]:
        with pytest.raises(ArtifactError, match=named):
            build_predictor(Artifact(model, {**table, "stack": [{"kind": "ttt", **change}]}))
    with pytest.raises(RecipeError, match=r"predict\.engine"):
        portable = {**table, "engine": "portable", "stack": [{"kind": "lora"}]}
        read_table(PredictConfig, portable, where="recipe", section="predict")
