"""Grouped causal self-attention: the only one there is, for training, measuring and stepping.

Shapes: B lanes or batch, T new positions, S past and new positions, D model_dim, H query heads,
G key/value heads, K head_dim, R rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from parbyte.kernels.attention import causal_attention
from parbyte.kernels.document_attention import packed_attention
from parbyte.kernels.filled_attention import filled_attention
from parbyte.kernels.heads import HeadSplit, split_heads
from parbyte.model.config import ModelConfig
from parbyte.model.lanes import Matrix, project

_XSA_EPS = 1e-12


class BlockWeights(NamedTuple):
    """One block's matrices in the compute dtype, with every constant and learned scale folded in.

    qkv: [(H + 2 G) K, D], out: [D, D], up: [F, D], down: [D, F]. gain: float32[H + G], 1 for keys.
    mix: [D] factors of the stream and of its start, or None.
    """

    qkv: Matrix
    out: Matrix
    up: Matrix
    down: Matrix
    gain: Tensor
    mix: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Span:
    """Where this call's T positions stand: rotary rows, who may see whom, what is in the past.

    cos, sin: float32[T, 1, K]. mask: bool[B, 1, T, S] or None for plain causality. start: positions
    already in the cache. value_embed_BTGK: added to the values of the layers that want it. dropout:
    share of each layer's output to drop; 0 outside training. filled: of the one new position in a
    cache of fixed shapes: its place, int64[1], and the first one that each lane sees, int64[B]; it
    stands for mask and start. ends_E: where documents end, see `document_ends`; it stands for mask.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None = None
    start: int = 0
    value_embed_BTGK: Tensor | None = None
    dropout: float = 0.0
    filled: tuple[Tensor, Tensor] | None = None
    ends_E: Tensor | None = None


class Attention(nn.Module):
    """Hold q, k, v, out and the query gain of one layer; `attend` is the forward pass."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        width, kv_width = config.model_dim, config.num_kv_heads * config.head_dim
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim, self.rope_dims = config.head_dim, config.rope_dims
        self.is_exclusive = layer >= config.num_layers - config.xsa_layers
        self.q = nn.Parameter(torch.zeros(width, width))
        self.k = nn.Parameter(torch.zeros(kv_width, width))
        self.v = nn.Parameter(torch.zeros(kv_width, width))
        self.out = nn.Parameter(torch.zeros(width, width))
        self.gain = nn.Parameter(torch.full((config.num_heads,), config.qk_gain))
        takes_value_embed = layer >= config.num_layers - config.value_embed_layers
        self.value_scale = nn.Parameter(torch.ones(1)) if takes_value_embed else None

    def forward(
        self,
        normed_BTD: Tensor,
        weights: BlockWeights,
        span: Span,
        store: tuple[Tensor, Tensor] | None,
        num_wanted: int = 0,
    ) -> Tensor:
        """Return what this layer's heads found [B, T, D], before the output matrix.

        store: this layer's key and value buffers [B, G, capacity, K], written at
        span.start .. span.start + T; None attends inside the call only. num_wanted: return the last
        positions only; 0 is all of them, as a slice from -0 is everything.
        """
        num_lanes, num_new, _ = normed_BTD.shape
        heads = project(normed_BTD, weights.qkv).view(num_lanes, num_new, -1, self.head_dim)
        split = HeadSplit(self.num_heads, self.num_kv_heads, self.rope_dims)
        q_BTHK, k_BTGK, v_BTGK = split_heads(heads, weights.gain, span.cos, span.sin, split)
        if self.value_scale is not None and span.value_embed_BTGK is not None:
            scale = self.value_scale.to(v_BTGK.dtype)
            v_BTGK = v_BTGK + span.value_embed_BTGK * scale
        q_BHTK, k_BGSK, v_BGSK = (x.transpose(1, 2) for x in (q_BTHK, k_BTGK, v_BTGK))
        if store is not None and span.filled is not None:
            keys_BGSK, values_BGSK = store
            keys_BGSK.index_copy_(2, span.filled[0], k_BGSK)
            values_BGSK.index_copy_(2, span.filled[0], v_BGSK)
            y_BHTK = filled_attention(q_BHTK, keys_BGSK, values_BGSK, *span.filled)
        elif span.ends_E is not None:
            y_BHTK = packed_attention(q_BTHK, k_BTGK, v_BTGK, span.ends_E).transpose(1, 2)
        else:
            if store is not None:
                k_BGSK = _append(store[0], k_BGSK, span.start)
                v_BGSK = _append(store[1], v_BGSK, span.start)
            mask = None if span.mask is None else span.mask[:, :, -num_wanted:]
            # What fills a cache prices coded tokens, and what learns outside training learns from
            # them: a decoder has to follow both. Rows that are only measured may be fast instead.
            is_followed = not self.training and (store is not None or torch.is_grad_enabled())
            y_BHTK = causal_attention(
                q_BHTK[:, :, -num_wanted:],
                k_BGSK,
                v_BGSK,
                mask=mask,
                repeatable=is_followed,
            )
        y_BTHK = y_BHTK.transpose(1, 2)
        if self.is_exclusive:
            y_BTHK = exclude_own_value(y_BTHK, v_BTGK[:, -num_wanted:])
        return y_BTHK.flatten(2)


def exclude_own_value(y_BTHK: Tensor, v_BTGK: Tensor) -> Tensor:
    """Remove from each head's output its part along the position's own value vector (XSA).

    y - (y . v) / (v . v) v, with v of the head's own group. Source: arXiv 2603.09078;
    openai/parameter-golf PRs 265 and 478.
    """
    y_BTGRK = y_BTHK.unflatten(2, (v_BTGK.shape[2], -1))
    v_BTG1K = v_BTGK.unsqueeze(3)
    dot = (y_BTGRK * v_BTG1K).sum(-1, keepdim=True)
    square = (v_BTG1K * v_BTG1K).sum(-1, keepdim=True).clamp(min=_XSA_EPS)
    return (y_BTGRK - dot / square * v_BTG1K).flatten(2, 3)


def _append(buffer_BGSK: Tensor, new_BGTK: Tensor, start: int) -> Tensor:
    end = start + new_BGTK.shape[2]
    buffer_BGSK[:, :, start:end] = new_BGTK
    return buffer_BGSK[:, :, :end]
