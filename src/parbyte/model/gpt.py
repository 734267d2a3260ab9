"""The decoder-only transformer: one forward pass for training, measuring and stepping.

tokens -> Embed -> blocks -> norm -> `hidden` -> `logits` (or, in training, the loss).
Shapes: B lanes or batch, T positions, S past and new positions, D model_dim, V vocab.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parbyte.kernels.attention import lower_right_mask
from parbyte.kernels.loss import softcapped_cross_entropy, softcapped_logits
from parbyte.kernels.mlp import mlp
from parbyte.model.attention import Attention, BlockWeights, Span
from parbyte.model.cache import NO_TOKEN, Cache
from parbyte.model.config import ModelConfig
from parbyte.model.embed import Embed, ValueEmbed
from parbyte.model.init import initialize_
from parbyte.model.lanes import LaneMatrix, add_projected, project
from parbyte.model.layers import drop, rms_norm, rotary_tables

_TABLE_POSITIONS = 4096


class MLP(nn.Module):
    """Two matrices around a squared leaky ReLU; used through its block's BlockWeights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(config.mlp_dim, config.model_dim))
        self.down = nn.Parameter(torch.zeros(config.model_dim, config.mlp_dim))


class Block(nn.Module):
    """One layer: mix of stream and input embedding, then attention, then MLP."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_scale = 1.0 / math.sqrt(layer + 1) if config.ln_scale else 1.0
        self.mlp_slope = config.mlp_slope
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(config.model_dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.model_dim))
        mix = torch.zeros(2, config.model_dim)
        mix[0] = 1.0  # where there is no storage, torch.stack would load the compiler
        self.resid_mix = nn.Parameter(mix) if config.resid_mix else None
        self.lane_weights: Callable[[BlockWeights], BlockWeights] | None = None

    def weights(self, dtype: torch.dtype) -> BlockWeights:
        """Return the matrices as the forward pass wants them.

        A scale on a norm's output or on an output dim acts on the matrix just as well, where it
        costs no pass over the activations: W (s n) = (s W) n and a * (W y) = (diag(a) W) y.
        """
        attn, mlp, scale = self.attn, self.mlp, self.norm_scale
        ones = attn.gain.new_ones(attn.num_kv_heads)
        mix = None
        if self.resid_mix is not None:
            mix = (self.resid_mix[0].to(dtype), self.resid_mix[1].to(dtype))
        return BlockWeights(
            qkv=(torch.cat([attn.q, attn.k, attn.v]) * scale).to(dtype),
            out=(attn.out * self.attn_scale[:, None]).to(dtype),
            up=(mlp.up * scale).to(dtype),
            down=(mlp.down * self.mlp_scale[:, None]).to(dtype),
            gain=torch.cat([attn.gain, ones]),
            mix=mix,
        )

    def forward(
        self,
        x_BTD: Tensor,
        start_BTD: Tensor,
        weights: BlockWeights,
        span: Span,
        store: tuple[Tensor, Tensor] | None,
        num_wanted: int = 0,
    ) -> Tensor:
        """Return the stream [B, T, D] after this layer; start_BTD is the stream before layer 0.

        num_wanted: return the last positions only; 0 is all.
        """
        if self.lane_weights is not None:
            weights = self.lane_weights(weights)
        if weights.mix is not None:
            keep_D, start_D = weights.mix
            # Not addcmul: compiled, its result would be stored in float32.
            x_BTD = keep_D * x_BTD + start_D * start_BTD
        heads_BTD = self.attn(rms_norm(x_BTD), weights, span, store, num_wanted)
        x_BTD = add_projected(x_BTD[:, -num_wanted:], heads_BTD, weights.out, span.dropout)
        return self._add_mlp(x_BTD, rms_norm(x_BTD), weights, span.dropout)

    def _add_mlp(
        self, x_BTD: Tensor, normed_BTD: Tensor, weights: BlockWeights, dropout: float
    ) -> Tensor:
        up, down = weights.up, weights.down
        if dropout or isinstance(up, LaneMatrix) or isinstance(down, LaneMatrix):
            active_BTF = F.leaky_relu(project(normed_BTD, up), self.mlp_slope).square()
            return add_projected(x_BTD, active_BTF, down, dropout)
        return x_BTD + mlp(normed_BTD, up, down, self.mlp_slope)


class GPT(nn.Module):
    """A causal language model; see ModelConfig for its parts.

    seed: of the initial weights, the same on every machine kind up to the linear algebra library;
    None leaves matrices and tables zero, for weights that are loaded next.
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        super().__init__()
        assert config.vocab_size > 0, "vocab_size comes from the tokenizer"
        self.config = config
        self.compute_dtype = torch.float32
        self.dropout = 0.0
        self.visits = config.visits
        self.embed = Embed(config)
        self.value_embed = ValueEmbed(config) if config.value_embed_layers else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        shape = (config.num_skips, config.model_dim)
        self.skip_weights = nn.Parameter(torch.ones(shape)) if config.num_skips else None
        is_gated = config.skips == "gated" and config.num_skips > 0
        self.skip_gates = nn.Parameter(torch.zeros(shape)) if is_gated else None
        head_shape = (config.vocab_size, config.model_dim)
        self.head = None if config.tied else nn.Parameter(torch.zeros(head_shape))
        bias = torch.zeros(config.vocab_size)
        self.logit_bias = nn.Parameter(bias) if config.logit_bias else None
        cos, sin = self._new_rotary(_TABLE_POSITIONS)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        if seed is not None:
            initialize_(self, config, seed)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Choose the dtype of activations and matrix products; the weights stay as they are."""
        self.compute_dtype = dtype

    def set_dropout(self, share: float) -> None:
        """Choose the share of activations that training drops; `eval()` drops none."""
        self.dropout = share

    def set_looping(self, is_looping: bool) -> None:
        """Choose whether the layers of `config.loop` are repeated; a new model repeats them."""
        self.visits = self.config.visits if is_looping else tuple(range(self.config.num_layers))

    def new_cache(self, num_lanes: int, capacity: int, *, fixed: bool = False) -> Cache:
        """Return an empty cache for `capacity` positions, bound to the weights of this moment.

        fixed: see Cache.is_fixed.
        """
        config, dtype, device = self.config, self.compute_dtype, self.embed.table.device
        shape = (num_lanes, config.num_kv_heads, capacity, config.head_dim)
        cos, sin = self._rotary(capacity)
        with torch.no_grad():
            weights = [block.weights(dtype) for block in self._layers()]
        return Cache(
            capacity=capacity,
            keys=[torch.zeros(shape, dtype=dtype, device=device) for _ in self.visits],
            values=[torch.zeros(shape, dtype=dtype, device=device) for _ in self.visits],
            documents=torch.zeros(num_lanes, capacity, dtype=torch.int64, device=device),
            last_token=torch.full((num_lanes, 1), NO_TOKEN, device=device),
            last_embed=torch.zeros(num_lanes, 1, config.model_dim, dtype=dtype, device=device),
            cos=cos,
            sin=sin,
            weights=weights,
            position_1=torch.zeros(1, dtype=torch.int64, device=device),
            first_B=torch.zeros(num_lanes, dtype=torch.int64, device=device),
            is_fixed=fixed,
        )

    def hidden(
        self,
        tokens_BT: Tensor,
        cache: Cache | None = None,
        *,
        num_last: int = 0,
        ends_E: Tensor | None = None,
    ) -> Tensor:
        """Return [B, T, D] after the last norm, in the compute dtype.

        cache: holds the positions before these; the T new ones are appended. Call with a cache
        under torch.no_grad or inference_mode. num_last: return so many of the last positions only,
        without a cache; the last layer then computes nothing for the others but keys and values.
        ends_E: int32[E], `document_ends` of these tokens, if they are to be attended to packed.
        """
        assert cache is None or (not num_last and ends_E is None)
        dtype = self.compute_dtype
        last_token = None if cache is None else cache.last_token
        last_embed = None if cache is None else cache.last_embed
        previous_BT = None
        if self.embed.looks_back:
            previous_BT = previous_tokens(tokens_BT, last_token, self.config.bos_id)
        start_BTD, embed_BTD = self.embed(tokens_BT, previous_BT, last_embed, dtype)
        span = self._span(tokens_BT, cache, ends_E)
        x_BTD = self._run_blocks(drop(start_BTD, span.dropout), span, cache, num_last)
        if cache is not None:
            cache.advance(tokens_BT, embed_BTD)
        return rms_norm(x_BTD)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32[..., V]: scaled, biased and softcapped."""
        return softcapped_logits(
            hidden,
            self._head().to(hidden.dtype),
            self.logit_bias,
            scale=self.config.logit_scale,
            softcap=self.config.softcap,
        )

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats over targets that are not -100."""
        return self.loss(self.hidden(inputs_BT), targets_BT)

    def loss(self, hidden: Tensor, targets_BT: Tensor) -> Tensor:
        """Return `forward`'s mean cross-entropy from what `hidden` returned."""
        return softcapped_cross_entropy(
            hidden.flatten(0, 1),
            self._head().to(hidden.dtype),
            self.logit_bias,
            targets_BT.flatten(),
            scale=self.config.logit_scale,
            softcap=self.config.softcap,
        )

    def _layers(self) -> Sequence[Block]:
        return cast("Sequence[Block]", self.blocks)

    def _head(self) -> Tensor:
        return self.embed.table if self.head is None else self.head

    def _rotary(self, num_positions: int) -> tuple[Tensor, Tensor]:
        if num_positions <= self.rope_cos.shape[0]:
            return self.rope_cos[:num_positions], self.rope_sin[:num_positions]
        cos, sin = self._new_rotary(num_positions)
        return cos.to(self.rope_cos.device), sin.to(self.rope_sin.device)

    def _new_rotary(self, num_positions: int) -> tuple[Tensor, Tensor]:
        config = self.config
        if self.embed.table.is_meta:  # nothing to compute, and torch.arange would load the compiler
            empty = torch.empty(num_positions, 1, config.head_dim)
            return empty, empty.clone()
        return rotary_tables(num_positions, config.head_dim, config.rope_dims, config.rope_base)

    def _span(self, tokens_BT: Tensor, cache: Cache | None, ends_E: Tensor | None) -> Span:
        dtype, num_new = self.compute_dtype, tokens_BT.shape[1]
        value_embed = None
        if self.value_embed is not None:
            value_embed = self.value_embed(tokens_BT, dtype)
        if cache is not None and self.config.document_mask:
            cache.note_documents(tokens_BT == self.config.bos_id)
        if cache is not None and cache.is_fixed and num_new == 1:
            at_1 = cache.position_1
            cos, sin = cache.cos.index_select(0, at_1), cache.sin.index_select(0, at_1)
            filled = (at_1, cache.first_B)
            return Span(cos, sin, filled=filled, value_embed_BTGK=value_embed)
        if cache is None:
            start, (cos, sin) = 0, self._rotary(num_new)
        else:
            start = cache.length
            assert start + num_new <= cache.capacity, "the caller resets a full cache"
            cos, sin = cache.cos[start : start + num_new], cache.sin[start : start + num_new]
        is_masked = self.config.document_mask and ends_E is None
        mask = self._document_mask(tokens_BT, cache) if is_masked else None
        dropout = self.dropout if self.training else 0.0
        return Span(cos, sin, mask, start, value_embed, dropout, ends_E=ends_E)

    def _document_mask(self, tokens_BT: Tensor, cache: Cache | None) -> Tensor:
        num_new = tokens_BT.shape[1]
        document_BT = (tokens_BT == self.config.bos_id).long().cumsum(1)
        document_BS = document_BT
        if cache is not None:
            start, end = cache.length, cache.length + num_new
            if start:
                document_BT = document_BT + cache.documents[:, start - 1 : start]
            cache.documents[:, start:end] = document_BT
            document_BS = cache.documents[:, :end]
        same_document = document_BT[:, :, None] == document_BS[:, None, :]
        causal = lower_right_mask(num_new, document_BS.shape[1], tokens_BT.device)
        return same_document[:, None] & causal

    def _run_blocks(
        self, start_BTD: Tensor, span: Span, cache: Cache | None, num_last: int
    ) -> Tensor:
        blocks, num_visits = self._layers(), len(self.visits)
        middle = num_visits // 2
        if cache is None:
            layer_weights = [block.weights(start_BTD.dtype) for block in blocks]
        else:
            layer_weights = cache.weights
        x_BTD, skips = start_BTD, []
        for visit, layer in enumerate(self.visits):
            store = None if cache is None else (cache.keys[visit], cache.values[visit])
            if skips and visit >= middle:
                x_BTD = self._join(x_BTD, skips.pop(), visit - middle)
            num_wanted = num_last if visit == num_visits - 1 else 0
            x_BTD = blocks[layer](x_BTD, start_BTD, layer_weights[layer], span, store, num_wanted)
            if self.skip_weights is not None and visit < middle:
                skips.append(x_BTD)
        return x_BTD

    def _join(self, x_BTD: Tensor, skip_BTD: Tensor, pair: int) -> Tensor:
        assert self.skip_weights is not None
        weight_D = self.skip_weights[pair]
        if self.skip_gates is None:
            return x_BTD + weight_D.to(x_BTD.dtype) * skip_BTD
        gate_D = torch.sigmoid(self.skip_gates[pair])
        weight_D = (1.0 - gate_D) * weight_D
        return gate_D.to(x_BTD.dtype) * x_BTD + weight_D.to(x_BTD.dtype) * skip_BTD


def previous_tokens(tokens_BT: Tensor, last_B1: Tensor | None, bos_id: int) -> Tensor:
    """Return int64[B, T]: the token before each one, -1 at a start (see model.cache.NO_TOKEN)."""
    if last_B1 is None:
        previous_BT = F.pad(tokens_BT[:, :-1], (1, 0), value=NO_TOKEN)
    elif tokens_BT.shape[1] == 1:
        previous_BT = last_B1
    else:
        previous_BT = torch.cat([last_B1, tokens_BT[:, :-1]], dim=1)
    return torch.where(tokens_BT == bos_id, NO_TOKEN, previous_BT)
