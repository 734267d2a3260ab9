"""What a model remembers between calls of `hidden`: keys, values and the last token.

Shapes: B lanes, G key/value heads, K head_dim, D model_dim.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from parbyte.model.attention import BlockWeights

NO_TOKEN = -1
"""Stands where a position has no previous token: at a cache's start and at every BOS."""


class Mark(NamedTuple):
    """Where a cache stood: its fields of these names, as they were."""

    length: int
    last_token: Tensor
    last_embed: Tensor
    first_B: Tensor


@dataclass
class Cache:
    """Static buffers for `capacity` positions of all visits; `length` of them are filled.

    keys, values: per visit of a layer [B, G, capacity, K]. documents: int64[B, capacity], the
    number of BOS tokens up to each position. last_token: int64[B, 1] and last_embed: [B, 1, D] are
    those of position length - 1. cos, sin: float32[capacity, 1, K]. weights: the blocks' matrices
    as they were when the cache was made: a cache belongs to those weights.
    position_1: int64[1], `length` as the device knows it. first_B: int64[B], the position of the
    last BOS, 0 without one or without a document mask. is_fixed: a call with one new position has
    the same shapes at every position, so that a CUDA graph can hold it.
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
    position_1: Tensor
    first_B: Tensor
    is_fixed: bool = False
    length: int = 0

    def reset(self) -> None:
        """Forget every position."""
        self.length = 0
        self.last_token.fill_(NO_TOKEN)
        self.last_embed.zero_()
        self.position_1.zero_()
        self.first_B.zero_()

    def advance(self, tokens_BT: Tensor, embed_BTD: Tensor) -> None:
        """Count T positions whose keys and values were written, and keep the last of them."""
        self.length += tokens_BT.shape[1]
        self.position_1 += tokens_BT.shape[1]
        self.last_token.copy_(tokens_BT[:, -1:])
        self.last_embed.copy_(embed_BTD[:, -1:])

    def note_documents(self, is_bos_BT: Tensor) -> None:
        """Move `first_B` to the last BOS of T positions that are about to be written."""
        place_T = self.position_1 + torch.arange(is_bos_BT.shape[1], device=is_bos_BT.device)
        last_B = torch.where(is_bos_BT, place_T, 0).amax(1)
        self.first_B.copy_(torch.maximum(self.first_B, last_B))

    def part(self, lanes: slice) -> "Cache":
        """Return the cache of some lanes: it writes to this one's buffers, but counts alone."""
        return replace(
            self,
            keys=[buffer[lanes] for buffer in self.keys],
            values=[buffer[lanes] for buffer in self.values],
            documents=self.documents[lanes],
            last_token=self.last_token[lanes],
            last_embed=self.last_embed[lanes],
            position_1=self.position_1.clone(),
            first_B=self.first_B[lanes],
        )

    def mark(self) -> Mark:
        """Return what `rewind` needs to come back here."""
        return Mark(
            self.length, self.last_token.clone(), self.last_embed.clone(), self.first_B.clone()
        )

    def rewind(self, mark: Mark) -> None:
        """Go back to a mark; what lies behind is overwritten by what comes next."""
        self.length = mark.length
        self.position_1.fill_(mark.length)
        self.last_token.copy_(mark.last_token)
        self.last_embed.copy_(mark.last_embed)
        self.first_B.copy_(mark.first_B)

    def drop_oldest(self, count: int) -> None:
        """Forget the first `count` positions; the caller moves cos and sin on by as many."""
        kept = self.length - count
        for buffer in (*self.keys, *self.values):
            buffer[:, :, :kept] = buffer[:, :, count : self.length].clone()
        self.documents[:, :kept] = self.documents[:, count : self.length].clone()
        self.length = kept
        self.position_1.fill_(kept)
        self.first_B.sub_(count).clamp_(min=0)
