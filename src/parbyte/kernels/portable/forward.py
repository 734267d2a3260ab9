"""The network's forward pass for some rows at a time: tokens -> hidden states.

A row is one position of one lane. Rows come in the order of time; each layer first remembers the
keys and values of all rows, then lets each row look at its own past. What a row computes, and in
which order, does not depend on the rows beside it.
Shapes: R rows, D model_dim, V rows of a table, E its width, K head_dim, U skips, C capacity, N any
width; see net for the packed matrices.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.attention import attend_, remember_
from parbyte.kernels.portable.embed import (
    bigram_buckets,
    look_up_,
    note_tokens_,
    project_rows,
    smear_row_,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import STATIC_SMEAR, Memory, Net
from parbyte.kernels.portable.numerics import BLOCK, multiply_, norm_rows_
from parbyte.kernels.portable.trace import Trace, new_trace

_ZERO = np.float32(0)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled(is_entry=True)
def forward(net: Net, memory: Memory, tokens_R: Ints, lanes_R: Ints, positions_R: Ints) -> Trace:
    """Remember the rows and return their trace; `out` are their hidden states float32[R, D].

    positions_R: places in the memory; a lane's rows stand in order and follow what it holds.
    """
    num_rows, num_layers = len(tokens_R), len(net.mix)
    trace = new_trace(net, num_rows)
    x_RD = embed(net, memory, trace, tokens_R, lanes_R, positions_R)
    norm_rows_(x_RD, trace.start, trace.start_factor)
    copy_(trace.start, x_RD)
    value_RN = project_rows(tokens_R, net.value_table, net.value_proj)
    more_RN = np.empty((num_rows, net.out.shape[1] * BLOCK), np.float32)
    for layer in range(num_layers):
        copy_(x_RD, trace.x[layer])
        join_and_mix_(net, trace, layer, x_RD)
        norm_rows_(x_RD, trace.normed[layer, 0], trace.factor[layer, 0])
        multiply_(trace.normed[layer, 0], net.qkv[layer], trace.heads[layer])
        if layer >= num_layers - net.value_layers:
            scale = net.value_scale[layer]
            add_values_(trace.heads[layer], value_RN, scale, net.first_value, net.value_width)
        copy_(trace.heads[layer], trace.qkv[layer])
        attention_(net, memory, trace, layer, lanes_R, positions_R)
        multiply_(trace.y[layer], net.out[layer], more_RN)
        add_(x_RD, more_RN)
        norm_rows_(x_RD, trace.normed[layer, 1], trace.factor[layer, 1])
        multiply_(trace.normed[layer, 1], net.up[layer], trace.up[layer])
        leaky_square_(trace.up[layer], net.mlp_slope, trace.hidden[layer])
        multiply_(trace.hidden[layer], net.down[layer], more_RN)
        add_(x_RD, more_RN)
    copy_(x_RD, trace.x[num_layers])
    norm_rows_(x_RD, trace.out, trace.out_factor)
    return trace


@compiled(is_inner=True)
def embed(
    net: Net, memory: Memory, trace: Trace, tokens_R: Ints, lanes_R: Ints, positions_R: Ints
) -> Floats:
    """Return the stream's start before its norm; note tokens, embeddings and documents."""
    note_tokens_(
        memory.last_token, memory.documents, tokens_R, lanes_R, positions_R,
        net.bos_id, net.document_mask, trace.previous,
    )  # fmt: skip
    x_RD, previous_R = trace.embed, trace.previous
    look_up_(tokens_R, net.embed, x_RD)
    num_buckets = len(net.bigram_table)
    if num_buckets > 0:
        buckets_R = bigram_buckets(tokens_R, previous_R, num_buckets)
        add_(x_RD, project_rows(buckets_R, net.bigram_table, net.bigram_proj))
    out_RD = x_RD.copy()
    if len(net.smear_gate) > 0:
        is_static = net.smear == STATIC_SMEAR
        for r in range(len(tokens_R)):
            smear_row_(
                x_RD[r], memory.last_embed[lanes_R[r]], previous_R[r] >= 0, is_static,
                net.smear_gate, net.smear_scale, trace.last[r], out_RD[r],
            )  # fmt: skip
    return out_RD


@compiled(is_inner=True)
def join_and_mix_(net: Net, trace: Trace, layer: int, x_RD: Floats) -> None:
    """Bring what an earlier layer left, and the stream's start, into the stream."""
    num_skips = len(net.skip_weights)
    later = layer - len(net.mix) // 2
    if 0 <= later < num_skips:
        is_gated = len(net.skip_gates) > 0
        gate_D = net.skip_gates[later] if is_gated else net.skip_weights[later]
        join_(x_RD, trace.x[num_skips - later], net.skip_weights[later], gate_D, is_gated)
    mix_(x_RD, trace.start, net.mix[layer, 0], net.mix[layer, 1])


@compiled(is_inner=True)
def attention_(
    net: Net, memory: Memory, trace: Trace, layer: int, lanes_R: Ints, positions_R: Ints
) -> None:
    """Remember the rows' keys and values, then let each row look at its past."""
    qkv_RN, y_RD = trace.qkv[layer], trace.y[layer]
    for r in range(len(lanes_R)):
        lane, place = lanes_R[r], positions_R[r]
        key_GKC, value_GCK = memory.keys[layer, lane], memory.values[layer, lane]
        cos_K, sin_K, half = net.cos[place], net.sin[place], net.rope_dims // 2
        remember_(qkv_RN[r], net.gain[layer], cos_K, sin_K, half, key_GKC, value_GCK, place)
    is_exclusive = layer >= len(net.mix) - net.xsa_layers
    for r in range(len(lanes_R)):
        lane, place = lanes_R[r], positions_R[r]
        key_GKC, value_GCK = memory.keys[layer, lane], memory.values[layer, lane]
        document_C, scale = memory.documents[lane], net.query_scale
        row_N, y_D = qkv_RN[r], y_RD[r]
        attend_(row_N, key_GKC, value_GCK, document_C, place, scale, is_exclusive, y_D)


@compiled(is_inner=True)
def copy_(x_RD: Floats, out_RD: Floats) -> None:
    """Write the rows as they are."""
    for r in range(len(x_RD)):
        for i in range(x_RD.shape[1]):
            out_RD[r, i] = x_RD[r, i]


@compiled(is_inner=True)
def add_(x_RD: Floats, more_RN: Floats) -> None:
    """Add rows, of which the first D numbers count."""
    for r in range(len(x_RD)):
        for i in range(x_RD.shape[1]):
            x_RD[r, i] += more_RN[r, i]


@compiled(is_inner=True)
def add_values_(
    qkv_RN: Floats, value_RN: Floats, scale: np.float32, first: int, width: int
) -> None:
    """Add scaled value embeddings to the values."""
    for r in range(len(qkv_RN)):
        for i in range(width):
            qkv_RN[r, first + i] += value_RN[r, i] * scale


@compiled(is_inner=True)
def mix_(x_RD: Floats, start_RD: Floats, keep_D: Floats, start_D: Floats) -> None:
    """Mix the stream's start into the stream."""
    for r in range(len(x_RD)):
        for i in range(x_RD.shape[1]):
            x_RD[r, i] = keep_D[i] * x_RD[r, i] + start_D[i] * start_RD[r, i]


@compiled(is_inner=True)
def join_(x_RD: Floats, skip_RD: Floats, weight_D: Floats, gate_D: Floats, is_gated: bool) -> None:
    """Add, or mix in by its gate, what an earlier layer left."""
    for r in range(len(x_RD)):
        for i in range(x_RD.shape[1]):
            skip = weight_D[i] * skip_RD[r, i]
            x_RD[r, i] = skip + (gate_D[i] * (x_RD[r, i] - skip) if is_gated else x_RD[r, i])


@compiled(is_inner=True)
def leaky_square_(x_RN: Floats, slope: np.float32, out_RN: Floats) -> None:
    """Write the squares, after a factor on the negative numbers."""
    for r in range(len(x_RN)):
        for i in range(x_RN.shape[1]):
            value = x_RN[r, i] * slope if x_RN[r, i] < _ZERO else x_RN[r, i]
            out_RN[r, i] = value * value
