"""What the kernels compute on: a network as packed arrays, its memory of a text, rotary tables.

Shapes: B lanes, D model_dim, H query heads, G key/value heads, K head_dim, L layers, V vocab,
C capacity, U skips, E width of a looked-up table; P, I, O: blocks, inputs and outputs of a packed
matrix.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.embed import NO_TOKEN
from parbyte.kernels.portable.numerics import BLOCK

SMEAR_KINDS = ("none", "static", "gated")
STATIC_SMEAR = 1

_LN2 = 0.6931471805599453
_HALF_PI = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
"""Pi / 2 in three parts (fdlibm): whole multiples of the first are exact in float64."""
_TERMS = 13

Floats = NDArray[np.float32]


class Net(NamedTuple):
    """Weights and constants; scales on norms and outputs are folded into the matrices.

    qkv: [L, P, I, O], q then k then v. gain: [L, H + G], 1 for keys. mix: [L, 2, D]. Parts that the
    network lacks have arrays of no rows. smear_gate and skip_gates are past their sigmoid where
    that is constant. first_value, value_width: the values' place among q, k and v. num_outputs: V,
    without the padding of the last block.
    """

    embed: Floats
    bigram_table: Floats
    bigram_proj: Floats
    value_table: Floats
    value_proj: Floats
    value_scale: Floats
    smear_gate: Floats
    smear_scale: Floats
    mix: Floats
    qkv: Floats
    gain: Floats
    out: Floats
    up: Floats
    down: Floats
    skip_weights: Floats
    skip_gates: Floats
    head: Floats
    bias: Floats
    cos: Floats
    sin: Floats
    mlp_slope: np.float32
    softcap: np.float32
    logit_scale: np.float32
    query_scale: np.float32
    num_kv_heads: int
    head_dim: int
    first_value: int
    value_width: int
    rope_dims: int
    num_outputs: int
    bos_id: int
    smear: int
    value_layers: int
    xsa_layers: int
    document_mask: bool


class Memory(NamedTuple):
    """Keys [L, B, G, K, C], values [L, B, G, C, K], documents [B, C], last token and embedding."""

    keys: Floats
    values: Floats
    documents: NDArray[np.int64]
    last_token: NDArray[np.int64]
    last_embed: Floats


def new_memory(net: Net, num_lanes: int, capacity: int) -> Memory:
    """Return an empty memory for `capacity` positions of each lane."""
    shape = (len(net.mix), num_lanes, net.num_kv_heads)
    return Memory(
        keys=np.zeros((*shape, net.head_dim, capacity), np.float32),
        values=np.zeros((*shape, capacity, net.head_dim), np.float32),
        documents=np.zeros((num_lanes, capacity), np.int64),
        last_token=np.full(num_lanes, NO_TOKEN, np.int64),
        last_embed=np.zeros((num_lanes, net.embed.shape[1]), np.float32),
    )


def reset_(memory: Memory) -> None:
    """Forget every position."""
    memory.last_token[:] = NO_TOKEN
    memory.last_embed[:] = 0


def packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return [..., P, I, O] of matrices [..., N, I]: blocks of outputs, inputs' rows inside."""
    *outer, num_outputs, num_inputs = shape
    return (*outer, -(-num_outputs // BLOCK), num_inputs, BLOCK)


def rotary_tables(
    num_positions: int, head_dim: int, rope_dims: int, base: float
) -> tuple[Floats, Floats]:
    """Return float32[T, K] cosines and signed sines, as model.layers lays them out.

    Only sums and products of float64, each rounded once: no mathematics library has a say.
    """
    cos = np.ones((num_positions, head_dim), np.float32)
    sin = np.zeros((num_positions, head_dim), np.float32)
    half, log_base = rope_dims // 2, _log(base)
    rates = _exp(np.array([-2.0 * j / rope_dims * log_base for j in range(half)]))
    angles = np.arange(num_positions, dtype=np.float64)[:, None] * rates
    cosines, sines = _cos_sin(angles)
    cos[:, :half] = cos[:, half:rope_dims] = cosines
    sin[:, :half], sin[:, half:rope_dims] = sines, -sines
    return cos, sin


def sigmoid(x: Floats) -> Floats:
    """Return float32 sigmoids, computed in float64."""
    return (1.0 / (1.0 + _exp(-np.clip(x.astype(np.float64), -80.0, 80.0)))).astype(np.float32)


def cosine(angle: float) -> float:
    """Return the cosine in float64, without a mathematics library."""
    return float(_cos_sin(np.array([angle]))[0][0])


def _cos_sin(angles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    turns = np.rint(angles * (2.0 / math.pi))
    rest = angles
    for part in _HALF_PI:
        rest = rest - turns * part
    square = rest * rest
    cos, sin = np.ones_like(rest), np.ones_like(rest)
    for term in range(_TERMS, 0, -1):
        cos = 1.0 - cos * square / ((2 * term - 1) * (2 * term))
        sin = 1.0 - sin * square / ((2 * term) * (2 * term + 1))
    sin = rest * sin
    quarter = turns.astype(np.int64) % 4
    turned_cos = np.choose(quarter, [cos, -sin, -cos, sin])
    return turned_cos, np.choose(quarter, [sin, cos, -sin, -cos])


def _exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.floor(x / _LN2 + 0.5)
    rest = x - whole * _LN2
    series = np.ones_like(rest)
    for term in range(2 * _TERMS, 0, -1):
        series = 1.0 + series * rest / term
    return np.ldexp(series, whole.astype(np.int64))


def _log(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = 0.0
    for odd in range(8 * _TERMS + 1, 0, -2):
        series = series * ratio * ratio + 1.0 / odd
    return exponent * _LN2 + 2.0 * ratio * series
