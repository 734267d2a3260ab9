"""From a model to what the portable kernels compute on: parameters in one vector, and a Net.

Shapes: P parameters, L layers, D model_dim.
"""

import math
from collections.abc import Iterator

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
        self.pieces: dict[str, slice] = {}
        parts, shapes, start = [np.zeros(0, np.float32)], {}, 0
        for field in Params._fields:
            groups = list(_groups(field, weights, model.config.num_layers))
            for name in (name for group in groups for name in group):
                parts.append(weights[name].ravel())
                self.pieces[name] = slice(start, start + len(parts[-1]))
                start = self.pieces[name].stop
            shapes[field] = _shape_of(field, groups, weights)
        assert self.pieces.keys() == weights.keys()
        self._shapes = shapes
        self._model_shapes = {name: value.shape for name, value in weights.items()}
        self.flat_P = np.concatenate(parts)
        self.params = self.view(self.flat_P)
        scales = [1.0 / math.sqrt(layer + 1) for layer in range(model.config.num_layers)]
        self.norm_scale_L = np.array(scales if model.config.ln_scale else [1.0] * len(scales))
        self.norm_scale_L = self.norm_scale_L.astype(np.float32)
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
        fold_(self.params, self.norm_scale_L, self.net)


def _groups(field: str, weights: dict[str, Floats], num_layers: int) -> Iterator[list[str]]:
    """Yield the names of one array's parameters, for every layer if the field has layers."""
    is_layered = "{}" in _NAMES[field][0]
    for layer in range(num_layers if is_layered else 1):
        names = [name.format(layer) for name in _NAMES[field]]
        if names[0] in weights:
            yield names


def _shape_of(field: str, groups: list[list[str]], weights: dict[str, Floats]) -> tuple[int, ...]:
    if field == "value_scales":
        return (len(groups),)
    is_layered = "{}" in _NAMES[field][0]
    if not groups:
        return (0,) * _NUM_AXES[field]
    rows = sum(len(weights[name]) for name in groups[0])
    shape = (rows, *weights[groups[0][0]].shape[1:])
    return (len(groups), *shape) if is_layered else shape


_NUM_AXES = {
    "head": 2,
    "bias": 1,
    "bigram_table": 2,
    "bigram_proj": 2,
    "bigram_scale": 1,
    "value_table": 2,
    "value_proj": 2,
    "value_scale": 1,
    "smear_gate": 1,
    "smear_scale": 1,
    "skip_weights": 2,
    "skip_gates": 2,
    "mix": 3,
}
"""Of the fields that a network may lack."""


def _new_net(config: ModelConfig, params: Params, window: int) -> Net:
    """Return a net that shares what needs no folding, for positions below `window`."""
    num_layers, dim = config.num_layers, config.model_dim
    cos, sin = rotary_tables(window, config.head_dim, config.rope_dims, config.rope_base)
    kept = np.zeros((num_layers, 2, dim), np.float32)
    kept[:, 0] = 1
    is_static = config.smear == "static"
    head = params.embed if config.tied else params.head
    return Net(
        embed=params.embed,
        bigram_table=params.bigram_table,
        bigram_proj=_packed(params.bigram_proj),
        value_table=params.value_table,
        value_proj=_packed(params.value_proj),
        value_scale=np.zeros(num_layers, np.float32),
        smear_gate=np.empty_like(params.smear_gate) if is_static else params.smear_gate,
        smear_scale=params.smear_scale,
        mix=params.mix if config.resid_mix else kept,
        qkv=_packed(params.qkv),
        gain=np.ones((num_layers, config.num_heads + config.num_kv_heads), np.float32),
        out=_packed(params.out),
        up=_packed(params.up),
        down=_packed(params.down),
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
        value_layers=config.value_embed_layers,
        xsa_layers=config.xsa_layers,
        document_mask=config.document_mask,
    )


def _packed(weight: Floats) -> Floats:
    return np.zeros(packed_shape(weight.shape), np.float32)
