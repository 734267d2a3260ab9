"""A log-linear mixture over the whole vocabulary, learned token by token.

    log q(v) = w_0 log p(v) + sum_i w_i f_i(v) + sum_k bonus[state_k(v)] - log Z

p: the row below; f_i and states: kernels.portable.evidence. Each weight is the sum of one row of
each set, picked by what is known before the token. Once the token x is known,
    d log q(x) / d w_i = f_i(x) - E_q[f_i],    d log q(x) / d bonus[s] = [x in s] - E_q[in s]
and each parameter takes a step divided by the root of its sum of squared gradients (Adagrad, Duchi
et al. 2011). The loss is convex in all of them. All weights 1 and no steps: the exact posterior.
A step takes the gradients of all lanes together.

Shapes: B lanes, V vocab, C candidates, I inputs, P sets, R rows of weights, Q states.
"""

from typing import NamedTuple

import numpy as np

from parbyte.kernels.portable.evidence import NUM, Doubles, Evidence, Floats, Ints
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, largest, log, total

GEOMETRIC, LINEAR, GATED, TILT, POSTERIOR = 0, 1, 2, 3, 4
"""What is done with the experts: see also kernels.portable.linear, tilt and posterior."""


class Mixer(NamedTuple):
    """Parameters, their sums of squared gradients, and what a prediction leaves for the learning.

    rate, bonus_rate: steps. sets, starts: which sets of rows there are, and where each begins in
    weights, behind the one row for all. picked: rows in use. expected: E_q of inputs and states.
    below_BV: log p of the row below. slopes: of one step. shares: of the linear mixture. tilt: its
    settings.
    """

    mode: int
    weights_RI: Floats
    squares_RI: Floats
    bonus_Q: Floats
    bonus_squares_Q: Floats
    rate: float
    bonus_rate: float
    sets: Ints
    starts: Ints
    picked_BP: Ints
    expected_BI: Doubles
    expected_BQ: Doubles
    below_BV: Floats
    slopes_RI: Doubles
    slopes_Q: Doubles
    shares_BE: Doubles
    tilt: Doubles


@compiled()
def mix_row_(mixer: Mixer, evidence: Evidence, b: int, weight_V: Floats, out_V: Floats) -> None:
    """Write one lane's row, and note the expected inputs and states."""
    below_V, recent_V, last = mixer.below_BV[b], evidence.recent_BV[b], mixer.slopes_RI.shape[1] - 1
    weight_I = np.zeros(last + 1, np.float32)
    for row in mixer.picked_BP[b]:
        for i in range(last + 1):
            weight_I[i] += mixer.weights_RI[row, i]
    for v in range(len(below_V)):
        out_V[v] = weight_I[0] * below_V[v] + weight_I[last] * recent_V[v]
    for c in range(evidence.facts_B4[b, NUM]):
        bonus = np.float32(0)
        for i in range(1, last):
            bonus += weight_I[i] * evidence.inputs_BCI[b, c, i]
            state = evidence.states_BCK[b, c, i - 1]
            if state >= 0:
                bonus += mixer.bonus_Q[state]
        out_V[evidence.tokens_BC[b, c]] += bonus
    top = largest(out_V)
    for v in range(len(below_V)):
        weight_V[v] = exp(out_V[v] - top)
    whole = total(weight_V)
    offset = np.float32(np.float64(top) + log(whole))
    for v in range(len(below_V)):
        out_V[v] -= offset
    _expect_(mixer, evidence, b, 1.0 / whole, weight_V)


@compiled()
def _expect_(mixer: Mixer, evidence: Evidence, b: int, scale: float, weight_V: Floats) -> None:
    """Note E_q of every input and state; weight_V times scale is q."""
    last, product_V = mixer.slopes_RI.shape[1] - 1, np.empty_like(weight_V)
    mixer.expected_BI[b, :] = 0.0
    mixer.expected_BQ[b, :] = 0.0
    for c in range(evidence.facts_B4[b, NUM]):
        prob = scale * np.float64(weight_V[evidence.tokens_BC[b, c]])
        for i in range(1, last):
            mixer.expected_BI[b, i] += prob * np.float64(evidence.inputs_BCI[b, c, i])
            state = evidence.states_BCK[b, c, i - 1]
            if state >= 0:
                mixer.expected_BQ[b, state] += prob
    for v in range(len(weight_V)):
        product_V[v] = weight_V[v] * mixer.below_BV[b, v]
    mixer.expected_BI[b, 0] = scale * total(product_V)
    for v in range(len(weight_V)):
        product_V[v] = weight_V[v] * evidence.recent_BV[b, v]
    mixer.expected_BI[b, last] = scale * total(product_V)


@compiled()
def add_slopes_(mixer: Mixer, evidence: Evidence, b: int, token: int) -> None:
    """Add the gradient of a token's log-probability."""
    slot, last = evidence.slots_BV[b, token], mixer.slopes_RI.shape[1] - 1
    for i in range(last + 1):
        slope = -mixer.expected_BI[b, i]
        if i == 0:
            slope += np.float64(mixer.below_BV[b, token])
        elif i == last:
            slope += np.float64(evidence.recent_BV[b, token])
        elif slot >= 0:
            slope += np.float64(evidence.inputs_BCI[b, slot, i])
            state = evidence.states_BCK[b, slot, i - 1]
            if state >= 0:
                mixer.slopes_Q[state] += 1.0
        for row in mixer.picked_BP[b]:
            mixer.slopes_RI[row, i] += slope
    for q in range(len(mixer.slopes_Q)):
        mixer.slopes_Q[q] -= mixer.expected_BQ[b, q]


@compiled()
def step_(mixer: Mixer) -> None:
    """Take one step of every parameter."""
    rate, bonus_rate = np.float32(mixer.rate), np.float32(mixer.bonus_rate)
    for r in range(len(mixer.weights_RI)):
        for i in range(mixer.weights_RI.shape[1]):
            slope = np.float32(mixer.slopes_RI[r, i])
            square = mixer.squares_RI[r, i] + slope * slope
            mixer.squares_RI[r, i] = square
            mixer.weights_RI[r, i] += rate * slope / np.sqrt(square)
    for q in range(len(mixer.bonus_Q)):
        slope = np.float32(mixer.slopes_Q[q])
        square = mixer.bonus_squares_Q[q] + slope * slope
        mixer.bonus_squares_Q[q] = square
        mixer.bonus_Q[q] += bonus_rate * slope / np.sqrt(square)
