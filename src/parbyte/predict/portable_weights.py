"""From a model to what the portable kernels compute on: parameters in one vector, and a Net.

Shapes: P parameters, L layers, V visits of layers, D model_dim.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.kernels.portable.net import SMEAR_KINDS, Net, packed_shape, rotary_tables
from parbyte.kernels.portable.params import Params, fold_, view_params
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT

Floats = NDArray[np.float32]

_NAMES = {
    "embed": ("embed.table",),
    "head": ("head",),
    "bias": ("logit_bias",),
    "bigram_table": ("embed.bigram.table",),
    "bigram_proj": ("embed.bigram.proj",),
    "bigram_scale": ("embed.bigram.scale",),
    "value_table": ("value_embed.table",),
    "value_proj": ("value_embed.proj",),
    "value_scale": ("value_embed.scale",),
    "value_scales": ("blocks.{}.attn.value_scale",),
    "smear_gate": ("embed.smear.gate",),
    "smear_scale": ("embed.smear.scale",),
    "skip_weights": ("skip_weights",),
    "skip_gates": ("skip_gates",),
    "qkv": ("blocks.{}.attn.q", "blocks.{}.attn.k", "blocks.{}.attn.v"),
    "out": ("blocks.{}.attn.out",),
    "up": ("blocks.{}.mlp.up",),
    "down": ("blocks.{}.mlp.down",),
    "attn_scale": ("blocks.{}.attn_scale",),
    "mlp_scale": ("blocks.{}.mlp_scale",),
    "gain": ("blocks.{}.attn.gain",),
    "mix": ("blocks.{}.resid_mix",),
}
"""Field of Params -> names of the model's parameters that follow one another in it."""


class PortableWeights:
    """A copy of a model's parameters in one vector, and the network that they fold into.

    flat_P: float32, to be changed in place; then comes `fold`. params: the same memory as arrays.
    pieces: name of a parameter -> its place in flat_P.
    """

    def __init__(self, model: GPT, window: int) -> None:
        weights = {
            name: value.detach().to("cpu").float().numpy()
            for name, value in model.named_parameters()
        }
        names = [name for field in Params._fields for name in _names_of(field, model.config)]
        names = [name for name in names if name in weights]
        assert sorted(names) == sorted(weights)
        ends = np.cumsum([weights[name].size for name in names]).tolist()
        starts = [0, *ends[:-1]]
        self.pieces = {n: slice(a, b) for n, a, b in zip(names, starts, ends, strict=True)}
        self._model_shapes = {name: weights[name].shape for name in names}
        self._shapes = _shapes_of(model.config)
        if model.config.smear != "none":
            self._shapes["smear_gate"] = weights["embed.smear.gate"].shape
        self.flat_P = np.concatenate([weights[name].ravel() for name in names])
        self.params = self.view(self.flat_P)
        scales = [1.0 / math.sqrt(layer + 1) for layer in range(model.config.num_layers)]
        self.norm_scale_L = np.array(scales if model.config.ln_scale else [1.0] * len(scales))
        self.norm_scale_L = self.norm_scale_L.astype(np.float32)
        self._visits = model.config.visits
        self.net = _new_net(model.config, self.params, window)
        self.fold()

    def parameters(self) -> dict[str, Tensor]:
        """Return a copy of every parameter as the model has it, by its name."""
        return {
            name: torch.from_numpy(self.flat_P[piece].copy()).view(self._model_shapes[name])
            for name, piece in self.pieces.items()
        }

    def view(self, flat_P: Floats) -> Params:
        """Return another vector of this length as the same arrays."""
        return view_params(flat_P, self._shapes)

    def fold(self) -> None:
        """Bring the network up to the parameters."""
        fold_(self.params, self.norm_scale_L, self._visits, self.net)


def _names_of(field: str, config: ModelConfig) -> list[str]:
    """Return the names of one field's parameters, layer by layer, lacking ones among them."""
    is_layered = "{}" in _NAMES[field][0]
    layers = range(config.num_layers if is_layered else 1)
    return [name.format(layer) for layer in layers for name in _NAMES[field]]


def _shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of Params, of no rows for what the network lacks."""
    dim, vocab, layers, skips = (
        config.model_dim, config.vocab_size, config.num_layers, config.num_skips
    )  # fmt: skip
    kv_width, has_bigrams = config.num_kv_heads * config.head_dim, config.bigram_buckets > 0
    has_values = config.value_embed_layers > 0
    return {
        "embed": (vocab, dim),
        "head": (0 if config.tied else vocab, dim),
        "bias": (vocab if config.logit_bias else 0,),
        "bigram_table": (config.bigram_buckets, config.bigram_dim),
        "bigram_proj": (dim if has_bigrams else 0, config.bigram_dim),
        "bigram_scale": (int(has_bigrams),),
        "value_table": (vocab if has_values else 0, config.value_embed_dim),
        "value_proj": (kv_width if has_values else 0, config.value_embed_dim),
        "value_scale": (int(has_values),),
        "value_scales": (config.value_embed_layers,),
        "smear_gate": (0,),
        "smear_scale": (int(config.smear == "gated"),),
        "skip_weights": (skips, dim),
        "skip_gates": (skips if config.skips == "gated" else 0, dim),
        "qkv": (layers, dim + 2 * kv_width, dim),
        "out": (layers, dim, dim),
        "up": (layers, config.mlp_dim, dim),
        "down": (layers, dim, config.mlp_dim),
        "attn_scale": (layers, dim),
        "mlp_scale": (layers, dim),
        "gain": (layers, config.num_heads),
        "mix": (layers if config.resid_mix else 0, 2, dim),
    }


def _new_net(config: ModelConfig, params: Params, window: int) -> Net:
    """Return a net that shares what needs no folding, for positions below `window`."""
    num_visits, dim = len(config.visits), config.model_dim
    cos, sin = rotary_tables(window, config.head_dim, config.rope_dims, config.rope_base)
    kept = np.zeros((num_visits, 2, dim), np.float32)
    kept[:, 0] = 1
    is_static = config.smear == "static"
    head = params.embed if config.tied else params.head
    return Net(
        embed=params.embed,
        bigram_table=params.bigram_table,
        bigram_proj=_packed(params.bigram_proj),
        value_table=params.value_table,
        value_proj=_packed(params.value_proj),
        value_scale=np.zeros(num_visits, np.float32),
        smear_gate=np.empty_like(params.smear_gate) if is_static else params.smear_gate,
        smear_scale=params.smear_scale,
        mix=kept,
        qkv=_packed(params.qkv, num_visits),
        gain=np.ones((num_visits, config.num_heads + config.num_kv_heads), np.float32),
        out=_packed(params.out, num_visits),
        up=_packed(params.up, num_visits),
        down=_packed(params.down, num_visits),
        skip_weights=params.skip_weights,
        skip_gates=np.empty_like(params.skip_gates),
        head=_packed(head),
        bias=params.bias if config.logit_bias else np.zeros(config.vocab_size, np.float32),
        cos=cos,
        sin=sin,
        mlp_slope=np.float32(config.mlp_slope),
        softcap=np.float32(config.softcap),
        logit_scale=np.float32(config.logit_scale),
        query_scale=np.float32(1.0 / math.sqrt(config.head_dim)),
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        first_value=(config.num_heads + config.num_kv_heads) * config.head_dim,
        value_width=config.num_kv_heads * config.head_dim,
        rope_dims=config.rope_dims,
        num_outputs=config.vocab_size,
        bos_id=config.bos_id,
        smear=SMEAR_KINDS.index(config.smear),
        value_layers=config.tail_visits(config.value_embed_layers),
        xsa_layers=config.tail_visits(config.xsa_layers),
        document_mask=config.document_mask,
    )


def _packed(weight: Floats, num_visits: int | None = None) -> Floats:
    shape = weight.shape if num_visits is None else (num_visits, *weight.shape[1:])
    return np.zeros(packed_shape(shape), np.float32)
