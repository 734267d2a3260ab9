"""Which of a network's parameters learn while a text is scored, and the rule that moves them."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, role_of
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.learning import TABLE_ROLES, learning_names
from parbyte.train.config import TrainConfig
from parbyte.train.exchange import joint_norm
from parbyte.train.muon import Muon
from parbyte.train.optim import MATRIX_ROLES, clip_


def choose_trained(model: GPT, train: str, last_blocks: int) -> dict[str, nn.Parameter]:
    """Return the parameters that learn, by name; the others are frozen (requires_grad = False).

    train, last_blocks: see `learning_names`.
    """
    num_layers, parameters = model.config.num_layers, dict(model.named_parameters())
    names = learning_names(parameters, train, last_blocks, num_layers)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    num_blocks = {"last": last_blocks, "scalars": 0}.get(train, num_layers)
    check_by_counting(model, model.config, num_blocks)
    return {name: parameters[name] for name in names}


def check_by_counting(model: nn.Module, config: ModelConfig, num_blocks: int) -> None:
    """Assert that the matrices of so many blocks learn and those of the others are frozen.

    A name says nothing about where the weights are: the script of openai/parameter-golf PR 1430
    froze "blocks.0." to "blocks.9." and with them 20,560 of 27 million weights.
    """
    width, kv_width = config.model_dim, config.num_kv_heads * config.head_dim
    per_block = 2 * width * width + 2 * kv_width * width + 2 * config.mlp_dim * width
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert learning >= num_blocks * per_block, f"only {learning:,} weights learn"
    still = config.num_layers - num_blocks
    assert frozen >= still * per_block, f"only {frozen:,} weights are frozen"


class Learner:
    """One rule over chosen parameters, each role at its own rate.

    adam: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
          w <- w - rate m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + eps)   at step k = 1, 2, ...
    sgd:  m <- momentum m + g,  w <- w - rate m
    muon: train.muon for the matrices, adam for the rest.
    Before it the gradients are clipped together, and tables and matrices shrink by rate x decay.
    Sources: Kingma and Ba 2014, arXiv:1412.6980; Loshchilov and Hutter 2017, arXiv:1711.05101.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], settings: TTTConfig) -> None:
        """Start with no memory of gradients."""
        self._settings = settings
        self._trained = list(trained.values())
        roles = {name: role_of(name) for name in trained}
        matrices = {n: p for n, p in trained.items() if roles[n] in MATRIX_ROLES}
        tables = [p for n, p in trained.items() if roles[n] in TABLE_ROLES]
        scalars = [p for n, p in trained.items() if roles[n] == Role.SCALAR]
        self._decayed = [(list(matrices.values()), settings.lr), (tables, settings.embed_lr)]
        groups = [(tables, settings.embed_lr), (scalars, settings.scalar_lr)]
        self._muon: Muon | None = None
        if settings.optimizer == "muon" and matrices:
            self._muon = Muon(matrices, TrainConfig(weight_decay=0.0), World())
        else:
            groups.append((list(matrices.values()), settings.lr))
        self._rates = [rate for members, rate in groups if members]
        self._rest = _torch_rule([members for members, _ in groups if members], settings)

    def step_(self, factor: float) -> None:
        """Move every parameter at its rate times `factor`, and forget the gradients."""
        settings = self._settings
        if settings.clip:
            grads = [p.grad for p in self._trained if p.grad is not None]
            clip_(grads, settings.clip, joint_norm(grads, [], World()))
        for members, rate in self._decayed if settings.weight_decay else ():
            for parameter in members:
                parameter.detach().mul_(1.0 - rate * factor * settings.weight_decay)
        if self._muon is not None:
            stacks = self._muon.stack_gradients()
            self._muon.step_(stacks, settings.lr * factor, settings.momentum)
        if self._rest is not None:
            for group, rate in zip(self._rest.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._rest.step()
        for parameter in self._trained:
            parameter.grad = None


def _torch_rule(
    members: list[list[nn.Parameter]], settings: TTTConfig
) -> torch.optim.Optimizer | None:
    groups = [{"params": parameters} for parameters in members]
    if not groups:
        return None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum)
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=settings.eps, weight_decay=0.0, fused=True)


def rate_factor(settings: TTTConfig, seen_tokens: int) -> float:
    """Return what every rate is multiplied by after so many tokens of a lane."""
    return 1.0 if settings.schedule == "constant" else cosine(seen_tokens, settings.horizon)


def cosine(done: int, horizon: int) -> float:
    """Return (1 + cos(pi min(1, done / horizon))) / 2: from 1 down to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / horizon)))
