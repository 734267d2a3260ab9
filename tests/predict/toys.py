"""Little models, texts and walks for the tests of predictors that adapt.

Shapes: B lanes, N positions of a text, V vocab.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import twins
from numpy.typing import NDArray
from torch import Tensor

from parbyte.model.gpt import GPT
from parbyte.predict.predictor import Predictor

BOS, VOCAB = twins.BOS, twins.VOCAB
WINDOW, STRIDE = 12, 4
PARTS = {"smear": "static", "bigram_buckets": 11, "bigram_dim": 8, "logit_bias": True}
"""Parts of a model beyond its matrices."""


@dataclass
class Artifact:
    """What build_predictor needs of an artifact."""

    model: GPT
    predict: dict[str, Any]
    tokenizer: Any = None
    prior_N: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))


def toy_model(**changes: Any) -> GPT:
    """Return a little model whose every parameter matters, frozen."""
    return twins.toy_model(**changes)


def exact_copy(model: GPT) -> GPT:
    """Return the model in float64, ready to be differentiated."""
    exact = copy.deepcopy(model).double().requires_grad_(True)
    exact.set_compute_dtype(torch.float64)
    return exact


def text(num_lanes: int, length: int, seed: int = 5) -> Tensor:
    """Draw tokens int64[B, N], none of them BOS."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCAB, (num_lanes, length), generator=generator)


def inputs_of(stream_BN: Tensor) -> Tensor:
    """Return BOS and all tokens but the last."""
    return torch.cat([torch.full((len(stream_BN), 1), BOS), stream_BN[:, :-1]], dim=1)


def rows(predictor: Predictor, tokens_BN: Tensor, *, by_steps: bool = False) -> Tensor:
    """Return the rows float32[B, N, V] of one computation or the other."""
    predictor.restore()
    parts, last_B = [], torch.full((len(tokens_BN),), BOS)
    for chunk_BT in tokens_BN.split(predictor.chunk, dim=1):
        if by_steps:
            for token_B in chunk_BT.T:
                parts.append(predictor.step(last_B)[:, None])
                last_B = token_B
        else:
            parts.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    predictor.restore()
    return torch.cat(parts, dim=1)


class GivenRows(Predictor):
    """A predictor whose rows were made up beforehand."""

    is_portable = True

    def __init__(self, rows_BTV: Tensor, chunk: int) -> None:
        self.rows_BTV, self.vocab_size, self.chunk, self.start = (
            rows_BTV,
            rows_BTV.shape[2],
            chunk,
            0,
        )

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        return self.rows_BTV[:, self.start : self.start + tokens_BT.shape[1]]

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        self.start += chunk_BT.shape[1]

    def restore(self) -> None:
        super().restore()
        self.start = 0


class Uniform(GivenRows):
    """A predictor that knows nothing, of any length of text."""

    def __init__(self, vocab: int, lanes: int, chunk: int) -> None:
        super().__init__(torch.full((lanes, chunk, vocab), -math.log(vocab)), chunk)

    def observe(self, chunk_BT: Tensor) -> None:
        Predictor.observe(self, chunk_BT)
