"""A network's parameters as they are trained, side by side in one vector; folding them into a Net.

Shapes: D model_dim, L layers, H query heads, N = (H + 2 G) K, F mlp_dim, V vocab, U skips, E width
of a side table.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import STATIC_SMEAR, Net, sigmoid
from parbyte.kernels.portable.numerics import BLOCK

Floats = NDArray[np.float32]


class Params(NamedTuple):
    """Parameters, or their gradient: arrays [outputs, inputs], of no rows where there are none.

    embed: [V, D]. head: [V, D], none if tied. qkv: [L, N, D]. out: [L, D, D]. up: [L, F, D].
    down: [L, D, F]. gain: [L, H]. mix: [L, 2, D]. value_scales: one for each layer that takes
    value embeddings, the last ones.
    """

    embed: Floats
    head: Floats
    bias: Floats
    bigram_table: Floats
    bigram_proj: Floats
    bigram_scale: Floats
    value_table: Floats
    value_proj: Floats
    value_scale: Floats
    value_scales: Floats
    smear_gate: Floats
    smear_scale: Floats
    skip_weights: Floats
    skip_gates: Floats
    qkv: Floats
    out: Floats
    up: Floats
    down: Floats
    attn_scale: Floats
    mlp_scale: Floats
    gain: Floats
    mix: Floats


def view_params(flat_P: Floats, shapes: dict[str, tuple[int, ...]]) -> Params:
    """Return a vector's pieces as arrays, in the order of the fields."""
    views, start = {}, 0
    for field in Params._fields:
        size = int(np.prod(shapes[field], dtype=np.int64))
        views[field] = flat_P[start : start + size].reshape(shapes[field])
        start += size
    assert start == len(flat_P)
    return Params(**views)


def fold_(params: Params, norm_scale_L: Floats, visits: tuple[int, ...], net: Net) -> None:
    """Bring the network's arrays up to the parameters; those that it shares are so already.

    A scale on a norm's output or on an output dim acts on the matrix as well: model.gpt.Block.
    visits: the layer of each of the network's, which are more where layers are repeated.
    """
    visits_V = np.array(visits, np.int64)
    net.gain[:, : params.gain.shape[1]] = params.gain[visits_V]
    if len(params.mix):
        net.mix[:] = params.mix[visits_V]
    first_value = len(params.qkv) - len(params.value_scales)
    for visit, layer in enumerate(visits):
        if layer >= first_value:
            net.value_scale[visit] = params.value_scales[layer - first_value]
    if net.smear == STATIC_SMEAR:
        net.smear_gate[:] = sigmoid(params.smear_gate)
    net.skip_gates[:] = sigmoid(params.skip_gates)
    pack_all_(params, norm_scale_L, visits_V, net)


@compiled(is_entry=True)
def pack_all_(params: Params, norm_scale_L: Floats, visits_V: NDArray[np.int64], net: Net) -> None:
    """Write the packed matrices, scales folded in."""
    wide, tall = params.qkv.shape[1], params.up.shape[1]
    for visit in range(len(visits_V)):
        layer = visits_V[visit]
        scale = norm_scale_L[layer]
        pack_(params.qkv[layer], np.full(wide, scale, np.float32), net.qkv[visit])
        pack_(params.out[layer], params.attn_scale[layer], net.out[visit])
        pack_(params.up[layer], np.full(tall, scale, np.float32), net.up[visit])
        pack_(params.down[layer], params.mlp_scale[layer], net.down[visit])
    for proj, scale_1, packed in (
        (params.bigram_proj, params.bigram_scale, net.bigram_proj),
        (params.value_proj, params.value_scale, net.value_proj),
    ):
        if len(proj) > 0:
            pack_(proj, np.full(len(proj), scale_1[0], np.float32), packed)
    head = params.head if len(params.head) > 0 else params.embed
    pack_(head, np.ones(len(head), np.float32), net.head)


@compiled()
def pack_(weight_NI: Floats, scale_N: Floats, out_PIO: Floats) -> None:
    """Write a scaled matrix in blocks of outputs, whose padding stays as it is."""
    for n in range(len(weight_NI)):
        block_IO, o = out_PIO[n // BLOCK], n % BLOCK
        for i in range(weight_NI.shape[1]):
            block_IO[i, o] = weight_NI[n, i] * scale_N[n]
