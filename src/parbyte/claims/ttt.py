"""Test-time training that leaves its weights behind, and scores that use them.

The score-first ledger of `train_in_place` is honest; what is computed afterwards with the trained
weights is not, for they have seen every token that is then scored.
Shapes: N tokens of the stream, V vocab.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parbyte.base.settings import setting
from parbyte.claims.claimed import Claimed, joined
from parbyte.claims.windows import Windows, sliding, sliding_over
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, role_of


@dataclass(frozen=True, kw_only=True)
class InPlace:
    """Settings of in-place test-time training; the defaults are PR 1430's."""

    chunk: int = setting(32_768, low=1, unit="tokens", doc="scored, then trained on")
    epochs: int = setting(1, low=1, doc="passes over a chunk")
    rows: int = setting(16, low=1, doc="windows of one AdamW step, over all ranks")
    lr: float = setting(1e-3, low=0.0, doc="largest rate; a cosine over the chunks")
    floor: float = setting(0.1, low=0.0, high=1.0, doc="smallest rate, as a share of lr")
    clip: float = setting(1.0, low=0.0, doc="largest global gradient norm")
    frozen_blocks: int = setting(10, low=0, doc="blocks frozen by name: their vectors, as it is")
    second_pass: float = setting(
        0.1, low=0.0, high=1.0, doc="share of the chunks that is trained on once more"
    )


def trained_names(model: nn.Module, frozen_blocks: int) -> list[str]:
    """Return the parameters that PR 1430 trains when it freezes its first blocks by name.

    The script keeps all matrices in banks, and the scales of value embeddings, outside the blocks:
    freezing `blocks.0.` to `blocks.9.` freezes 20,560 numbers and trains the other 27,046,924.
    """
    prefixes = tuple(f"blocks.{block}." for block in range(frozen_blocks))

    def is_frozen(name: str) -> bool:
        is_vector = role_of(name) is Role.SCALAR and not name.endswith("value_scale")
        return name.startswith(prefixes) and is_vector

    return [name for name, _ in model.named_parameters() if not is_frozen(name)]


def train_in_place(model: GPT, stream_N: Tensor, windows: Windows, settings: InPlace) -> Claimed:
    """Score each chunk, then train the model itself on it; at the end, train on the first again.

    The ledger holds prices from before each update and breaks nothing but C4 at its tail. The
    model is changed: whatever scores this text with it again breaks C3 and C4.

    Source: card 10; PR 1430 (0.026 bpb worse than without it), 549.
    """
    step = _Step(model, trained_names(model, settings.frozen_blocks), settings.clip)
    num_priced = len(stream_N) - 1
    num_chunks = math.ceil(num_priced / settings.chunk)
    by_chunk: list[list[int]] = [[] for _ in range(num_chunks)]
    for start in windows.starts(len(stream_N)):
        first_scored = start + windows.first_column(start, len(stream_N))
        by_chunk[min(first_scored // settings.chunk, num_chunks - 1)].append(start)

    def train(chunk: int, lr: float) -> None:
        first = chunk * settings.chunk
        text_N = stream_N[first : min(first + settings.chunk, num_priced) + 1]
        step.train(text_N, windows.window, settings.rows, lr)

    parts = []
    for chunk, starts in enumerate(by_chunk):
        parts.append(sliding_over(model, windows.batches_of(stream_N, starts)))
        if chunk < num_chunks - 1 and starts:
            cosine = (1.0 + math.cos(math.pi * chunk / (num_chunks - 1))) / 2.0
            for _ in range(settings.epochs):
                train(chunk, settings.lr * max(settings.floor, cosine))
    for chunk in range(int(num_chunks * settings.second_pass)):
        train(chunk, settings.lr * max(settings.floor, 0.05))
    return joined(parts)


def rescored(model: GPT, stream_N: Tensor, windows: Windows, settings: InPlace) -> Claimed:
    """Train a copy in place on the whole text, drop its ledger, score the text with what is left.

    Breaks C3 and C4 (T1, T3, T4). Source: card 10; PR 1430's second use of its weights, 991, 1318.
    """
    adapted = copy.deepcopy(model)
    train_in_place(adapted, stream_N, windows, settings)
    return sliding(adapted, stream_N, windows)


@dataclass(frozen=True, kw_only=True)
class BeforeQuantisation:
    """Settings of training on the text before packing; the defaults are PR 1350's."""

    epochs: int = setting(6, low=1, doc="passes over the text; the rate is a cosine over them")
    rows: int = setting(32, low=1, doc="windows of one AdamW step")
    lr: float = setting(5e-4, low=0.0, doc="rate of the first pass")
    clip: float = setting(1.0, low=0.0, doc="largest global gradient norm")
    frozen_blocks: int = setting(2, low=0, doc="blocks frozen by name, see `trained_names`")


def train_before_packing(
    model: GPT, stream_N: Tensor, windows: Windows, settings: BeforeQuantisation
) -> GPT:
    """Return a copy that was trained on the text for some epochs, ready to be rounded and packed.

    Breaks C1 through the artifact (T5), and C3 and C4 in every score of this text (T1, T3).
    Source: card 11; PR 1350, 672, 1517, 1972.
    """
    adapted = copy.deepcopy(model)
    step = _Step(adapted, trained_names(adapted, settings.frozen_blocks), settings.clip)
    for epoch in range(settings.epochs):
        lr = settings.lr * (1.0 + math.cos(math.pi * epoch / settings.epochs)) / 2.0
        step.train(stream_N, windows.window, settings.rows, lr)
    return adapted


class _Step:
    """AdamW over some parameters of a model, which it changes."""

    def __init__(self, model: GPT, names: list[str], clip: float) -> None:
        self._model, self._clip = model, clip
        table = dict(model.named_parameters())
        self._parameters = [table[name] for name in names]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._parameters, betas=(0.9, 0.999), weight_decay=0.0)

    def train(self, text_N: Tensor, window: int, rows: int, lr: float) -> None:
        """Train on the whole windows of a text, `rows` of them a step; what is left is left out."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        num_rows = (len(text_N) - 1) // window
        inputs_RL = text_N[: num_rows * window].view(num_rows, window)
        answers_RL = text_N[1 : num_rows * window + 1].view(num_rows, window)
        for first in range(0, num_rows, rows):
            part = slice(first, first + rows)
            logits_RLV = self._model.logits(self._model.hidden(inputs_RL[part]))
            loss = F.cross_entropy(logits_RLV.flatten(0, 1), answers_RL[part].flatten())
            grads = torch.autograd.grad(loss, self._parameters, allow_unused=True)
            for parameter, grad in zip(self._parameters, grads, strict=True):
                parameter.grad = grad
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad()
