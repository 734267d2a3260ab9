"""What a model remembers between calls of `hidden`: keys, values and the last token.

Shapes: B lanes, G key/value heads, K head_dim, D model_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from parbyte.model.attention import BlockWeights

NO_TOKEN = -1
"""Stands where a position has no previous token: at a cache's start and at every BOS."""


@dataclass
class Cache:
    """Static buffers for `capacity` positions of all visits; `length` of them are filled.

    keys, values: per visit of a layer [B, G, capacity, K]. documents: int64[B, capacity], the
    number of BOS tokens up to each position. last_token: int64[B, 1] and last_embed: [B, 1, D] are
    those of position length - 1. cos, sin: float32[capacity, 1, K]. weights: the blocks' matrices
    as they were when the cache was made: a cache belongs to those weights.
    """

    capacity: int
    keys: list[Tensor]
    values: list[Tensor]
    documents: Tensor
    last_token: Tensor
    last_embed: Tensor
    cos: Tensor
    sin: Tensor
    weights: list[BlockWeights]
    length: int = 0

    def reset(self) -> None:
        """Forget every position."""
        self.length = 0
        self.last_token = torch.full_like(self.last_token, NO_TOKEN)
        self.last_embed = torch.zeros_like(self.last_embed)

    def drop_oldest(self, count: int) -> None:
        """Forget the first `count` positions; the caller moves cos and sin on by as many."""
        kept = self.length - count
        for buffer in (*self.keys, *self.values):
            buffer[:, :, :kept] = buffer[:, :, count : self.length].clone()
        self.documents[:, :kept] = self.documents[:, count : self.length].clone()
        self.length = kept
