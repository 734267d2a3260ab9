"""Rows made and tokens learned, position after position: one kernel for every way of mixing.

Shapes: B lanes, T positions, V vocab, I inputs, P sets, R rows of weights, Q states.
"""

import numpy as np

from parbyte.kernels.portable.counts import MAX_ORDER, has_room, learn_place_
from parbyte.kernels.portable.evidence import (
    GROUPS,
    MATCH_LENGTH,
    ORDER,
    Evidence,
    Experts,
    Floats,
    Ints,
    fade_,
    gather_,
    group_of,
    note_token_,
)
from parbyte.kernels.portable.geometric import (
    GEOMETRIC,
    LINEAR,
    POSTERIOR,
    TILT,
    Mixer,
    add_slopes_,
    mix_row_,
    step_,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.linear import add_linear_slopes_, mix_linear_row_, step_linear_
from parbyte.kernels.portable.numerics import exp, total
from parbyte.kernels.portable.posterior import posterior_row_
from parbyte.kernels.portable.tilt import tilt_row_

_ENTROPY_BINS = _AGE_BINS = 12
SET_ROWS = (GROUPS, _ENTROPY_BINS, MAX_ORDER + 1, _AGE_BINS)
"""Rows of weights of each set: by order, by entropy, by match, by the document's tokens so far."""
_BY_ORDER, _BY_ENTROPY, _BY_MATCH = 0, 1, 2

_SMALLEST = np.float32(1e-12)
"""Least probability by which an expert's share is divided."""


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
    """Write the rows of some positions, and learn each position's tokens before the next.

    rows_BTV of no positions: learn only. tokens_BT of no positions: predict only.
    """
    for t in range(start, stop):
        if rows_BTV.shape[1] > 0:
            for b in range(len(rows_BTV)):
                _predict_(mixer, experts, evidence, b, rows_BTV[b, t], out_BTV[b, t])
        if tokens_BT.shape[1] > 0:
            _learn_(mixer, experts, evidence, tokens_BT, t)


@compiled()
def _predict_(
    mixer: Mixer, experts: Experts, evidence: Evidence, b: int, row_V: Floats, out_V: Floats
) -> None:
    """Write one lane's row."""
    if mixer.mode == POSTERIOR:
        posterior_row_(experts, evidence, b, row_V, out_V)
    elif mixer.mode == TILT:
        tilt_row_(mixer, experts, evidence, b, row_V, out_V)
    else:
        _mix_(mixer, experts, evidence, b, row_V, out_V)


@compiled()
def _mix_(
    mixer: Mixer, experts: Experts, evidence: Evidence, b: int, row_V: Floats, out_V: Floats
) -> None:
    """Write one lane's mixed row."""
    below_V = mixer.below_BV[b]
    prob_V, weight_V = np.empty_like(below_V), np.empty_like(below_V)
    for v in range(len(below_V)):
        below_V[v] = row_V[v]
        prob = exp(row_V[v])
        weight_V[v] = prob * row_V[v]
        prob_V[v] = _SMALLEST if prob < _SMALLEST else prob
    entropy = -total(weight_V)
    gather_(experts, prob_V, evidence, b)
    facts_4, age = evidence.facts_B4[b], experts.ages_B[b]
    mixer.picked_BP[b, 0] = 0
    for p in range(len(mixer.sets)):
        row = _row_of(mixer.sets[p], facts_4, entropy, age)
        mixer.picked_BP[b, 1 + p] = mixer.starts[p] + row
    if mixer.mode == GEOMETRIC:
        mix_row_(mixer, evidence, b, weight_V, out_V)
    else:
        mix_linear_row_(mixer, evidence, b, entropy, out_V)


@compiled(is_lean=True)
def _row_of(kind: int, facts_4: Ints, entropy: float, age: int) -> int:
    """Return the row of a set that a position picks. age: tokens of the document so far."""
    if kind == _BY_ORDER:
        return group_of(facts_4[ORDER])
    if kind == _BY_ENTROPY:
        return int(min(np.int64(entropy * 2.0), _ENTROPY_BINS - 1))
    if kind == _BY_MATCH:
        return int(facts_4[MATCH_LENGTH])
    doublings = 0
    while age > 0 and doublings < _AGE_BINS - 1:
        age //= 2
        doublings += 1
    return doublings


@compiled()
def _learn_(mixer: Mixer, experts: Experts, evidence: Evidence, tokens_BT: Ints, t: int) -> None:
    """Learn every lane's token at one position; an ended lane, BOS after BOS, teaches nothing.

    All lanes were predicted before, so that it does not matter which lane is which.
    """
    lanes, start, history = experts.num_lanes, experts.length[0], experts.history
    num_tries = len(experts.orders)
    is_roomy = has_room(experts.cells, lanes * num_tries, 0.875)
    if mixer.mode == GEOMETRIC or mixer.mode == LINEAR:
        mixer.slopes_RI[:] = 0.0
        mixer.slopes_Q[:] = 0.0
    if experts.fading > 0.0:
        fade_(experts)
    for b in range(lanes):
        token = tokens_BT[b, t]
        history[start + b] = token
        experts.ages_B[b] = 0 if token == experts.bos_id else experts.ages_B[b] + 1
        if token == experts.bos_id and history[start + b - lanes] == token:
            continue
        if mixer.mode == GEOMETRIC:
            add_slopes_(mixer, evidence, b, token)
        elif mixer.mode == LINEAR:
            add_linear_slopes_(mixer, evidence, b, token)
        note_token_(experts, evidence, b, token)
        for trie in range(num_tries if is_roomy else 0):
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
    if mixer.mode == GEOMETRIC:
        step_(mixer)
    elif mixer.mode == LINEAR:
        step_linear_(mixer)
