"""A log-linear mixture over the whole vocabulary, learned token by token.

    log q(v) = w_0 log p(v) + sum_i w_i f_i(v) + sum_k bonus[state_k(v)] - log Z

p: the row below; f_i: inputs of kernels.portable.evidence, zero but for a few tokens. Each weight is
the sum of one row of each set, picked by what is known before the token: so w_i differs with the
order reached, the entropy of the row below, the length of the match. Once the token x is known,
    d log q(x) / d w_i = f_i(x) - E_q[f_i],    d log q(x) / d bonus[s] = [x in s] - E_q[in s]
and each parameter takes a step divided by the root of its sum of squared gradients (Adagrad, Duchi
et al. 2011). The loss is convex in all of them. All weights 1 and no steps: the exact posterior.

Shapes: B lanes, T positions, V vocab, C candidates, I inputs, R rows of weights, Q states.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.counts import COUNT, MAX_ORDER, MOST_RECORDS, WIDTH, learn_place_
from parbyte.kernels.portable.evidence import (
    GROUPS,
    MATCH_LENGTH,
    MATCH_TOKEN,
    NUM,
    ORDER,
    Evidence,
    Experts,
    gather_,
    group_of,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, largest, log, total

ENTROPY_BINS = 12
ROWS = 1 + GROUPS + ENTROPY_BINS + MAX_ORDER + 1
"""Rows of weights: one for all, then the sets of order, entropy and match."""
PICKED = 4

_SMALLEST = np.float32(1e-12)
"""Least probability by which an expert's share is divided."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Mixer(NamedTuple):
    """Parameters, their sums of squared gradients, and what a prediction leaves for the learning.

    rate, bonus_rate: steps; 0: that part never learns. picked: rows in use. expected_BI,
    expected_BQ: E_q of inputs and states. below_BV: log p of the row below. slopes: of one step.
    """

    weights_RI: Floats
    squares_RI: Floats
    bonus_Q: Floats
    bonus_squares_Q: Floats
    rate: float
    bonus_rate: float
    picked_BP: Ints
    expected_BI: Doubles
    expected_BQ: Doubles
    below_BV: Floats
    slopes_RI: Doubles
    slopes_Q: Doubles


@compiled(is_entry=True)
def walk_(
    mixer: Mixer,
    experts: Experts,
    evidence: Evidence,
    tokens_BT: Ints,
    rows_BTV: Floats,
    out_BTV: Floats,
    start: int,
    stop: int,
) -> None:
    """Mix the rows of some positions, and learn each position's tokens before the next.

    rows_BTV of no positions: learn only. tokens_BT of no positions: predict only.
    """
    for t in range(start, stop):
        if rows_BTV.shape[1] > 0:
            _predict_(mixer, experts, evidence, rows_BTV, out_BTV, t)
        if tokens_BT.shape[1] > 0:
            _learn_(mixer, experts, evidence, tokens_BT, t)


@compiled()
def _predict_(
    mixer: Mixer,
    experts: Experts,
    evidence: Evidence,
    rows_BTV: Floats,
    out_BTV: Floats,
    t: int,
) -> None:
    """Write every lane's mixed row at one position."""
    prob_V = np.empty(rows_BTV.shape[2], np.float32)
    weight_V = np.empty(rows_BTV.shape[2], np.float32)
    for b in range(len(rows_BTV)):
        below_V = mixer.below_BV[b]
        below_V[:] = rows_BTV[b, t]
        for v in range(len(below_V)):
            prob = exp(below_V[v])
            weight_V[v] = prob * below_V[v]
            prob_V[v] = _SMALLEST if prob < _SMALLEST else prob
        entropy = -total(weight_V)
        gather_(experts, prob_V, evidence, b)
        facts = evidence.facts_B4[b]
        mixer.picked_BP[b, 0] = 0
        mixer.picked_BP[b, 1] = 1 + group_of(facts[ORDER])
        mixer.picked_BP[b, 2] = 1 + GROUPS + min(np.int64(entropy * 2.0), ENTROPY_BINS - 1)
        mixer.picked_BP[b, 3] = 1 + GROUPS + ENTROPY_BINS + facts[MATCH_LENGTH]
        _mix_row_(mixer, evidence, b, weight_V, out_BTV[b, t])


@compiled()
def _mix_row_(mixer: Mixer, evidence: Evidence, b: int, weight_V: Floats, out_V: Floats) -> None:
    """Combine one row, and note the expected inputs and states."""
    below_V, num_inputs = mixer.below_BV[b], mixer.weights_RI.shape[1]
    weight_I = np.zeros(num_inputs, np.float32)
    for r in range(PICKED):
        for i in range(num_inputs):
            weight_I[i] += mixer.weights_RI[mixer.picked_BP[b, r], i]
    for v in range(len(below_V)):
        out_V[v] = weight_I[0] * below_V[v]
    for c in range(evidence.facts_B4[b, NUM]):
        bonus = np.float32(0)
        for i in range(1, num_inputs):
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
    num_inputs = mixer.weights_RI.shape[1]
    mixer.expected_BI[b, :] = 0.0
    mixer.expected_BQ[b, :] = 0.0
    for c in range(evidence.facts_B4[b, NUM]):
        prob = scale * np.float64(weight_V[evidence.tokens_BC[b, c]])
        for i in range(1, num_inputs):
            mixer.expected_BI[b, i] += prob * np.float64(evidence.inputs_BCI[b, c, i])
            state = evidence.states_BCK[b, c, i - 1]
            if state >= 0:
                mixer.expected_BQ[b, state] += prob
    for v in range(len(weight_V)):
        weight_V[v] *= mixer.below_BV[b, v]
    mixer.expected_BI[b, 0] = scale * total(weight_V)


@compiled()
def _learn_(mixer: Mixer, experts: Experts, evidence: Evidence, tokens_BT: Ints, t: int) -> None:
    """Learn every lane's token at one position; an ended lane, BOS after BOS, teaches nothing."""
    lanes, start, history = experts.num_lanes, experts.length[0], experts.history
    num_tries = len(experts.orders)
    num_records = len(experts.cells) // WIDTH
    asked = experts.cells[COUNT] + lanes * num_tries * MOST_RECORDS
    has_room = asked <= num_records - num_records // 8
    mixer.slopes_RI[:] = 0.0
    mixer.slopes_Q[:] = 0.0
    for b in range(lanes):
        token = tokens_BT[b, t]
        history[start + b] = token
        if token == experts.bos_id and history[start + b - lanes] == token:
            continue
        _add_slopes_(mixer, evidence, b, token)
        facts = evidence.facts_B4[b]
        experts.tries[facts[MATCH_LENGTH]] += 1.0
        experts.hits[facts[MATCH_LENGTH]] += 1.0 if facts[MATCH_TOKEN] == token else 0.0
        for trie in range(num_tries if has_room else 0):
            learn_place_(
                experts.cells,
                experts.undo,
                history,
                start + b,
                lanes,
                experts.bos_id,
                trie,
                experts.orders[trie],
                experts.skips[trie],
            )
    experts.length[0] = start + lanes
    _step_(mixer)


@compiled()
def _add_slopes_(mixer: Mixer, evidence: Evidence, b: int, token: int) -> None:
    """Add the gradient of a token's log-probability."""
    slot = evidence.slots_BV[b, token]
    for i in range(mixer.weights_RI.shape[1]):
        slope = -mixer.expected_BI[b, i]
        if i == 0:
            slope += np.float64(mixer.below_BV[b, token])
        elif slot >= 0:
            slope += np.float64(evidence.inputs_BCI[b, slot, i])
            state = evidence.states_BCK[b, slot, i - 1]
            if state >= 0:
                mixer.slopes_Q[state] += 1.0
        for r in range(PICKED):
            mixer.slopes_RI[mixer.picked_BP[b, r], i] += slope
    for q in range(len(mixer.slopes_Q)):
        mixer.slopes_Q[q] -= mixer.expected_BQ[b, q]


@compiled()
def _step_(mixer: Mixer) -> None:
    """Take one step of every parameter."""
    for r in range(len(mixer.weights_RI)):
        for i in range(mixer.weights_RI.shape[1]):
            slope = np.float32(mixer.slopes_RI[r, i])
            square = mixer.squares_RI[r, i] + slope * slope
            mixer.squares_RI[r, i] = square
            mixer.weights_RI[r, i] += np.float32(mixer.rate) * slope / np.sqrt(square)
    for q in range(len(mixer.bonus_Q)):
        slope = np.float32(mixer.slopes_Q[q])
        square = mixer.bonus_squares_Q[q] + slope * slope
        mixer.bonus_squares_Q[q] = square
        mixer.bonus_Q[q] += np.float32(mixer.bonus_rate) * slope / np.sqrt(square)
