"""What a forward pass leaves for the way back: each layer's inputs and what its parts saw.

Shapes: R rows, L layers, D model_dim, N width of q, k and v, F width of the MLP, both whole blocks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import Net
from parbyte.kernels.portable.numerics import BLOCK

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Trace(NamedTuple):
    """The numbers of some rows, from tokens to hidden states.

    previous: int64[R], the token before, or NO_TOKEN. embed, last: [R, D], each row's embedding and
    the previous one, before the smear. start: [R, D], normed. x: [L + 1, R, D], the stream before
    each layer and after the last. normed: [L, 2, R, D], inputs of attention and MLP. heads, qkv:
    [L, R, N], before and after norm and rotation. y: [L, R, D], of attention. up, hidden: [L, R,
    F], before and after the activation. out: [R, D], normed. *factor: of the norms, [R], [L, 2, R].
    """

    previous: Ints
    embed: Floats
    last: Floats
    start: Floats
    start_factor: Floats
    x: Floats
    normed: Floats
    factor: Floats
    heads: Floats
    qkv: Floats
    y: Floats
    up: Floats
    hidden: Floats
    out: Floats
    out_factor: Floats


@compiled(is_inner=True)
def new_trace(net: Net, num_rows: int) -> Trace:
    """Return a trace to be filled."""
    dim, num_layers = net.embed.shape[1], len(net.mix)
    wide, tall = net.qkv.shape[1] * BLOCK, net.up.shape[1] * BLOCK
    return Trace(
        np.empty(num_rows, np.int64),
        np.empty((num_rows, dim), np.float32),
        np.empty((num_rows, dim), np.float32),
        np.empty((num_rows, dim), np.float32),
        np.empty(num_rows, np.float32),
        np.empty((num_layers + 1, num_rows, dim), np.float32),
        np.empty((num_layers, 2, num_rows, dim), np.float32),
        np.empty((num_layers, 2, num_rows), np.float32),
        np.empty((num_layers, num_rows, wide), np.float32),
        np.empty((num_layers, num_rows, wide), np.float32),
        np.empty((num_layers, num_rows, dim), np.float32),
        np.empty((num_layers, num_rows, tall), np.float32),
        np.empty((num_layers, num_rows, tall), np.float32),
        np.empty((num_rows, dim), np.float32),
        np.empty(num_rows, np.float32),
    )
