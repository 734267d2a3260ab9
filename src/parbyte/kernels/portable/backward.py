"""From the mean nats of some rows' next tokens to the gradient of every parameter.

`forward` left the rows' trace; what stood in the memory before them is constant. Every sum runs in
an order that the shapes alone decide.
Shapes: R rows, L layers, D model_dim, V vocab, N width of q, k and v, F width of the MLP, U skips.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.attention_back import attention_back_
from parbyte.kernels.portable.embed import bigram_buckets, project_rows
from parbyte.kernels.portable.forward import add_, join_
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import STATIC_SMEAR, Memory, Net
from parbyte.kernels.portable.numerics import exp, largest, sigmoid, total
from parbyte.kernels.portable.params import Params
from parbyte.kernels.portable.products_back import (
    dot,
    multiply_back_,
    norm_rows_back_,
    project_rows_back_,
    scatter_,
)
from parbyte.kernels.portable.trace import Trace
from parbyte.kernels.portable.walk import head_logits

_ZERO, _ONE = np.float32(0), np.float32(1)
_NEGLIGIBLE = np.float32(1e-12)
"""Smaller probabilities pull at nothing, so that subnormal numbers stay rare."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled(is_entry=True)
def backward_(
    net: Net,
    memory: Memory,
    trace: Trace,
    params: Params,
    norm_scale_L: Floats,
    tokens_R: Ints,
    lanes_R: Ints,
    positions_R: Ints,
    next_R: Ints,
    weight_R: Floats,
    grads: Params,
) -> None:
    """Write the gradient of the weighted sum of -ln p(next token) over the rows.

    tokens_R, lanes_R, positions_R: as `forward` got them, all lanes at one position side by side.
    """
    num_layers, num_skips = len(net.mix), len(net.skip_weights)
    value_RN = project_rows(tokens_R, net.value_table, net.value_proj)
    back_value_RN, back_start_RD = np.zeros_like(value_RN), np.zeros_like(trace.out)
    back_skips_URD = np.zeros((num_skips, *trace.out.shape), np.float32)
    back_RD, normed_back_RD = np.zeros_like(trace.out), np.empty_like(trace.out)
    head_back_(net, trace, params, next_R, weight_R, grads, normed_back_RD)
    norm_rows_back_(normed_back_RD, trace.out, trace.out_factor, back_RD)
    for layer in range(num_layers - 1, -1, -1):
        if layer < num_skips:
            add_(back_RD, back_skips_URD[layer])
        scale = norm_scale_L[layer]
        mlp_back_(net, trace, params, layer, scale, grads, back_RD)
        attention_part_back_(
            net, memory, trace, params, layer, scale, lanes_R, positions_R,
            value_RN, grads, back_RD, back_value_RN,
        )  # fmt: skip
        join_and_mix_back_(net, trace, layer, grads, back_RD, back_start_RD, back_skips_URD)
    add_(back_RD, back_start_RD)
    num_lanes = np.sum(positions_R == positions_R[0])
    embed_back_(net, trace, params, tokens_R, num_lanes, back_RD, grads)
    if len(params.value_table) > 0:
        project_rows_back_(
            back_value_RN, tokens_R, params.value_table, params.value_proj, params.value_scale,
            grads.value_table, grads.value_proj, grads.value_scale,
        )  # fmt: skip


@compiled(is_inner=True)
def head_back_(
    net: Net,
    trace: Trace,
    params: Params,
    next_R: Ints,
    weight_R: Floats,
    grads: Params,
    back_RD: Floats,
) -> None:
    """Go back from the weighted nats to the hidden states, through softmax, softcap and head."""
    logits_RN, vocab_size = head_logits(trace.out, net), net.num_outputs
    for r in range(len(logits_RN)):
        logits_V = logits_RN[r, :vocab_size]
        share_V = softmax_back(logits_V, next_R[r], weight_R[r])
        if net.softcap > _ZERO:
            for v in range(vocab_size):
                ratio = logits_V[v] / net.softcap
                share_V[v] *= _ONE - ratio * ratio
        logits_V[:] = share_V
    if len(grads.bias) > 0:
        sum_rows_(logits_RN, grads.bias)
    is_tied = len(params.head) == 0
    head_VD = params.embed if is_tied else params.head
    grad_VD = grads.embed if is_tied else grads.head
    if not is_tied:
        grads.embed[:] = _ZERO
    scale_V = np.full(vocab_size, net.logit_scale, np.float32)
    multiply_back_(
        logits_RN, trace.out, head_VD, scale_V, grad_VD, np.empty(0, np.float32), back_RD
    )


@compiled(is_inner=True)
def softmax_back(logits_V: Floats, token: int, weight: np.float32) -> Floats:
    """Return the gradient of -weight ln softmax(logits)[token]."""
    share_V = np.empty_like(logits_V)
    top = largest(logits_V)
    for v in range(len(logits_V)):
        share_V[v] = exp(logits_V[v] - top)
    factor = np.float32(1.0 / total(share_V))
    for v in range(len(logits_V)):
        prob = share_V[v] * factor
        share_V[v] = prob * weight if prob > _NEGLIGIBLE else _ZERO
    share_V[token] -= weight
    return share_V


@compiled(is_inner=True)
def mlp_back_(
    net: Net,
    trace: Trace,
    params: Params,
    layer: int,
    norm_scale: np.float32,
    grads: Params,
    back_RD: Floats,
) -> None:
    """Add what comes back through the layer's MLP."""
    up_RF = trace.up[layer]
    back_RF, normed_back_RD = np.empty_like(up_RF), np.empty_like(back_RD)
    multiply_back_(
        back_RD, trace.hidden[layer], params.down[layer], params.mlp_scale[layer],
        grads.down[layer], grads.mlp_scale[layer], back_RF,
    )  # fmt: skip
    num_hidden, slope = params.up.shape[1], net.mlp_slope
    for r in range(len(up_RF)):
        for i in range(num_hidden):
            rate = slope if up_RF[r, i] < _ZERO else _ONE
            value = up_RF[r, i] * rate
            back_RF[r, i] *= (value + value) * rate
    scale_F = np.full(num_hidden, norm_scale, np.float32)
    multiply_back_(
        back_RF, trace.normed[layer, 1], params.up[layer], scale_F,
        grads.up[layer], np.empty(0, np.float32), normed_back_RD,
    )  # fmt: skip
    norm_rows_back_(normed_back_RD, trace.normed[layer, 1], trace.factor[layer, 1], back_RD)


@compiled(is_inner=True)
def attention_part_back_(
    net: Net,
    memory: Memory,
    trace: Trace,
    params: Params,
    layer: int,
    norm_scale: np.float32,
    lanes_R: Ints,
    positions_R: Ints,
    value_RN: Floats,
    grads: Params,
    back_RD: Floats,
    back_value_RN: Floats,
) -> None:
    """Add what comes back through the layer's attention, and to the value embeddings."""
    back_RN, normed_back_RD = np.empty_like(trace.qkv[layer]), np.empty_like(back_RD)
    multiply_back_(
        back_RD, trace.y[layer], params.out[layer], params.attn_scale[layer],
        grads.out[layer], grads.attn_scale[layer], normed_back_RD,
    )  # fmt: skip
    attention_back_(
        net, memory, trace, layer, lanes_R, positions_R,
        normed_back_RD, back_RN, grads.gain[layer],
    )  # fmt: skip
    later = layer - (len(net.mix) - net.value_layers)
    if later >= 0:
        grads.value_scales[later] = add_values_back_(
            back_RN, value_RN, net.value_scale[layer], net.first_value, net.value_width,
            back_value_RN,
        )  # fmt: skip
    scale_N = np.full(params.qkv.shape[1], norm_scale, np.float32)
    multiply_back_(
        back_RN, trace.normed[layer, 0], params.qkv[layer], scale_N,
        grads.qkv[layer], np.empty(0, np.float32), normed_back_RD,
    )  # fmt: skip
    norm_rows_back_(normed_back_RD, trace.normed[layer, 0], trace.factor[layer, 0], back_RD)


@compiled(is_inner=True)
def add_values_back_(
    back_RN: Floats,
    value_RN: Floats,
    scale: np.float32,
    first: int,
    width: int,
    back_value_RN: Floats,
) -> np.float32:
    """Add what comes back to the value embeddings; return the gradient of their scale."""
    grad = _ZERO
    for r in range(len(back_RN)):
        back_N = back_RN[r, first : first + width]
        grad += dot(back_N, value_RN[r])
        for i in range(width):
            back_value_RN[r, i] += back_N[i] * scale
    return grad


@compiled(is_inner=True)
def join_and_mix_back_(
    net: Net,
    trace: Trace,
    layer: int,
    grads: Params,
    back_RD: Floats,
    back_start_RD: Floats,
    back_skips_URD: Floats,
) -> None:
    """Go back through the mix with the stream's start, then through the join with a skip."""
    num_skips, x_RD = len(net.skip_weights), trace.x[layer].copy()
    later, is_gated = layer - len(net.mix) // 2, len(net.skip_gates) > 0
    is_joined = 0 <= later < num_skips
    skip_RD = trace.x[num_skips - later if is_joined else layer]
    if is_joined:
        gate_D = net.skip_gates[later] if is_gated else net.skip_weights[later]
        join_(x_RD, skip_RD, net.skip_weights[later], gate_D, is_gated)
    keep_D, start_D = net.mix[layer, 0], net.mix[layer, 1]
    if len(grads.mix) > 0:
        sum_products_(back_RD, x_RD, grads.mix[layer, 0])
        sum_products_(back_RD, trace.start, grads.mix[layer, 1])
    for r in range(len(back_RD)):
        for i in range(len(keep_D)):
            back_start_RD[r, i] += start_D[i] * back_RD[r, i]
            back_RD[r, i] *= keep_D[i]
    if is_joined:
        join_back_(net, later, trace.x[layer], skip_RD, grads, back_RD,
                   back_skips_URD[num_skips - 1 - later])  # fmt: skip


@compiled(is_inner=True)
def join_back_(
    net: Net,
    later: int,
    x_RD: Floats,
    skip_RD: Floats,
    grads: Params,
    back_RD: Floats,
    back_skip_RD: Floats,
) -> None:
    """Go back through skip + gate (x - skip), or x + skip, where skip = weight * what was left."""
    weight_D, is_gated = net.skip_weights[later], len(net.skip_gates) > 0
    if is_gated:
        gate_D, apart_RD = net.skip_gates[later], np.empty_like(x_RD)
        for r in range(len(x_RD)):
            for i in range(len(weight_D)):
                slope = gate_D[i] * (_ONE - gate_D[i])
                apart_RD[r, i] = (x_RD[r, i] - weight_D[i] * skip_RD[r, i]) * slope
        sum_products_(back_RD, apart_RD, grads.skip_gates[later])
    for r in range(len(x_RD)):
        for i in range(len(weight_D)):
            back = back_RD[r, i]
            if is_gated:
                back_RD[r, i] = back * gate_D[i]
                back = back * (_ONE - gate_D[i])
            back_skip_RD[r, i] = back
    sum_products_(back_skip_RD, skip_RD, grads.skip_weights[later])
    for r in range(len(x_RD)):
        for i in range(len(weight_D)):
            back_skip_RD[r, i] *= weight_D[i]


@compiled(is_inner=True)
def embed_back_(
    net: Net,
    trace: Trace,
    params: Params,
    tokens_R: Ints,
    num_lanes: int,
    back_RD: Floats,
    grads: Params,
) -> None:
    """Go back through the first norm, the smear and the tables; the token table adds up."""
    normed_back_RD, num_buckets = np.zeros_like(back_RD), len(params.bigram_table)
    norm_rows_back_(back_RD, trace.start, trace.start_factor, normed_back_RD)
    if len(net.smear_gate) > 0:
        normed_back_RD = smear_back(net, trace, num_lanes, normed_back_RD, grads)
    scatter_(tokens_R, normed_back_RD, grads.embed)
    if num_buckets > 0:
        buckets_R = bigram_buckets(tokens_R, trace.previous, num_buckets)
        project_rows_back_(
            normed_back_RD, buckets_R, params.bigram_table, params.bigram_proj,
            params.bigram_scale, grads.bigram_table, grads.bigram_proj, grads.bigram_scale,
        )  # fmt: skip


@compiled(is_inner=True)
def smear_back(net: Net, trace: Trace, num_lanes: int, back_RD: Floats, grads: Params) -> Floats:
    """Return what comes back to the embeddings, and write the gradient of the smear."""
    num_rows, dim = back_RD.shape
    out_RD, back_last_D = np.zeros_like(back_RD), np.empty(dim, np.float32)
    grads.smear_gate[:] = _ZERO
    grads.smear_scale[:] = _ZERO
    for r in range(num_rows):
        if net.smear == STATIC_SMEAR:
            static_smear_back_(net.smear_gate, trace, r, back_RD[r], grads, out_RD[r], back_last_D)
        else:
            gated_smear_back_(net, trace, r, back_RD[r], grads, out_RD[r], back_last_D)
        if r >= num_lanes and trace.previous[r] >= 0:
            for i in range(dim):
                out_RD[r - num_lanes, i] += back_last_D[i]
    return out_RD


@compiled(is_inner=True)
def static_smear_back_(
    gate_D: Floats,
    trace: Trace,
    r: int,
    back_D: Floats,
    grads: Params,
    out_D: Floats,
    back_last_D: Floats,
) -> None:
    """Go back through one row of last + gate (x - last), gate = sigmoid."""
    for i in range(len(gate_D)):
        gate, apart = gate_D[i], trace.embed[r, i] - trace.last[r, i]
        grads.smear_gate[i] += back_D[i] * apart * (gate * (_ONE - gate))
        out_D[i] += back_D[i] * gate
        back_last_D[i] = back_D[i] * (_ONE - gate)


@compiled(is_inner=True)
def gated_smear_back_(
    net: Net,
    trace: Trace,
    r: int,
    back_D: Floats,
    grads: Params,
    out_D: Floats,
    back_last_D: Floats,
) -> None:
    """Go back through one row of x + scale sigmoid(gate . x) last."""
    gate_N, scale = net.smear_gate, net.smear_scale[0]
    x_D, last_D = trace.embed[r], trace.last[r]
    logit = _ZERO
    for i in range(len(gate_N)):
        logit += x_D[i] * gate_N[i]
    share = sigmoid(logit)
    pull = dot(back_D, last_D)
    grads.smear_scale[0] += pull * share
    back_logit = pull * scale * (share * (_ONE - share))
    for i in range(len(back_D)):
        out_D[i] += back_D[i]
        back_last_D[i] = back_D[i] * (scale * share)
    for i in range(len(gate_N)):
        out_D[i] += back_logit * gate_N[i]
        grads.smear_gate[i] += back_logit * x_D[i]


@compiled(is_inner=True)
def sum_rows_(x_RN: Floats, out_N: Floats) -> None:
    """Write the sum of the rows' first numbers."""
    out_N[:] = _ZERO
    for r in range(len(x_RN)):
        for i in range(len(out_N)):
            out_N[i] += x_RN[r, i]


@compiled(is_inner=True)
def sum_products_(x_RD: Floats, y_RD: Floats, out_D: Floats) -> None:
    """Write the sum over rows of elementwise products."""
    out_D[:] = _ZERO
    for r in range(len(x_RD)):
        for i in range(len(out_D)):
            out_D[i] += x_RD[r, i] * y_RD[r, i]
