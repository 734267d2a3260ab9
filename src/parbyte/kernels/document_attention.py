"""Causal attention inside documents, by blocks: what no query may see is not computed.

A block of queries and keys is skipped, computed whole or masked element by element. Compiled on a
GPU this is one kernel; eager it is as slow as a mask of T x T, so only training asks for it.
Shapes: B batch, H query heads, G key/value heads, T positions, K head_dim.
"""

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

# Loaded only where it is used: it brings the compiler with it, which takes seconds.
if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Positions of a block; T is a multiple of it."""


class DocumentBlocks(NamedTuple):
    """Which blocks of queries and keys there is anything to see in."""

    mask: "BlockMask"


def blocks_pay(tokens_BT: Tensor) -> bool:
    """Say whether attention over these positions should go by blocks: compiled GPU training."""
    is_compiled_training = torch.compiler.is_compiling() and torch.is_grad_enabled()
    return tokens_BT.is_cuda and is_compiled_training and tokens_BT.shape[1] % BLOCK == 0


def document_blocks(document_BT: Tensor) -> DocumentBlocks:
    """Return which blocks hold a pair of positions of one document, the key not after the query.

    document: int64, counts up along T.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def may_see(lane: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (document_BT[lane, query] == document_BT[lane, key])

    num_lanes, num_positions = document_BT.shape
    shape = (num_lanes, None, num_positions, num_positions)
    return DocumentBlocks(create_block_mask(may_see, *shape, document_BT.device, BLOCK))


def document_attention(
    q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, blocks: DocumentBlocks
) -> Tensor:
    """Attend inside documents; returns [B, H, T, K]. Logits are scaled by 1/sqrt(K).

    Source: FlexAttention, arXiv 2412.05496.
    """
    from torch.nn.attention.flex_attention import flex_attention

    y_BHTK = flex_attention(q_BHTK, k_BGTK, v_BGTK, block_mask=blocks.mask, enable_gqa=True)
    return cast("Tensor", y_BHTK)
