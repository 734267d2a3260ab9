"""Secondary estimation: the likeliest tokens' probabilities, as experience corrects them.

A row is a chain of questions: is it the likeliest token? if not, is it the second? ... The k-th has
probability s_k = p_k / (1 - p_1 - ... - p_{k-1}). A map of (rank, how often the first question was
answered yes of late, stretch(s_k) in 33 knots) learns how often the answer was yes; between two
knots it is read in a straight line (the APM of paq8, Mahoney). The corrected answers and what the
row says about the rest make a row again: it sums to one whatever the map holds.

Shapes: B lanes, T positions, V vocab, K ranks, N knots of a map.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log, total

KNOTS, LIMIT, RECENT = 33, 8.0, 8
"""Knots from stretch -8 to 8; the last 3 answers to the first question make a context."""
_LEAST = 1e-9
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Calibrator(NamedTuple):
    """The map float64[K, RECENT, KNOTS], and of the last prediction the tokens and readings.

    last_B: token before the position. recent_B: last answers as bits. knots_BK: lower knot read.
    parts_BK: how far towards the next one. moves, uses: sums of one step.
    """

    map_KRN: Doubles
    moves_KRN: Doubles
    uses_KRN: Doubles
    tokens_BK: Ints
    knots_BK: Ints
    parts_BK: Doubles
    recent_B: Ints
    last_B: Ints
    rate: float
    share: float
    bos_id: int


@compiled()
def stretch(prob: float) -> float:
    """Return ln(p / (1 - p)), limited to the map's knots."""
    prob = min(max(prob, _LEAST), 1.0 - _LEAST)
    return min(max(log(prob) - log(1.0 - prob), -LIMIT), LIMIT)


@compiled(is_entry=True)
def calibrate_(
    state: Calibrator, tokens_BT: Ints, rows_BTV: Floats, out_BTV: Floats, num_positions: int
) -> None:
    """Correct the rows of some positions, and learn each position's tokens before the next.

    rows_BTV of no positions: learn only. tokens_BT of no positions: predict only.
    """
    for t in range(num_positions):
        if rows_BTV.shape[1] > 0:
            for b in range(len(rows_BTV)):
                _correct_(state, b, rows_BTV[b, t], out_BTV[b, t])
        if tokens_BT.shape[1] > 0:
            _learn_(state, tokens_BT, t)


@compiled()
def _find_likeliest_(row_V: Floats, tokens_K: Ints) -> None:
    """Write the likeliest tokens in order; of equals the smaller token first."""
    tokens_K[:] = -1
    for v in range(len(row_V)):
        k = len(tokens_K)
        while k > 0 and (tokens_K[k - 1] < 0 or row_V[v] > row_V[tokens_K[k - 1]]):
            k -= 1
        for j in range(len(tokens_K) - 1, k, -1):
            tokens_K[j] = tokens_K[j - 1]
        if k < len(tokens_K):
            tokens_K[k] = v


@compiled()
def _correct_(state: Calibrator, b: int, row_V: Floats, out_V: Floats) -> None:
    """Write one lane's row."""
    tokens_K = state.tokens_BK[b]
    _find_likeliest_(row_V, tokens_K)
    left, new_left = 1.0, 1.0
    for k in range(len(tokens_K)):
        prob = np.float64(exp(row_V[tokens_K[k]]))
        yes = min(max(prob / max(left, _LEAST), _LEAST), 1.0 - _LEAST)
        place = (stretch(yes) + LIMIT) * (KNOTS - 1) / (2.0 * LIMIT)
        knot = min(np.int64(place), KNOTS - 2)
        part = place - knot
        state.knots_BK[b, k] = knot
        state.parts_BK[b, k] = part
        map_N = state.map_KRN[k, state.recent_B[b]]
        read = map_N[knot] * (1.0 - part) + map_N[knot + 1] * part
        new_yes = state.share * read + (1.0 - state.share) * yes
        new_yes = min(max(new_yes, _LEAST), 1.0 - _LEAST)
        out_V[tokens_K[k]] = np.float32(log(new_left * new_yes))
        left -= prob
        new_left *= 1.0 - new_yes
    _rescale_rest_(row_V, tokens_K, new_left, out_V)


@compiled()
def _rescale_rest_(row_V: Floats, tokens_K: Ints, mass: float, out_V: Floats) -> None:
    """Let the tokens that are not listed share a mass as the row says."""
    prob_V, listed_K = np.empty_like(row_V), np.empty(len(tokens_K), np.float32)
    for v in range(len(row_V)):
        prob_V[v] = exp(row_V[v])
    for k in range(len(tokens_K)):
        prob_V[tokens_K[k]] = np.float32(0)
        listed_K[k] = out_V[tokens_K[k]]
    offset = np.float32(log(mass) - log(total(prob_V)))
    for v in range(len(row_V)):
        out_V[v] = row_V[v] + offset
    for k in range(len(tokens_K)):
        out_V[tokens_K[k]] = listed_K[k]


@compiled()
def _learn_(state: Calibrator, tokens_BT: Ints, t: int) -> None:
    """Move the knots that were read towards the answers, all lanes' at once."""
    state.moves_KRN[:] = 0.0
    state.uses_KRN[:] = 0.0
    for b in range(len(tokens_BT)):
        token = tokens_BT[b, t]
        is_padding = token == state.bos_id and state.last_B[b] == token
        state.last_B[b] = token
        if is_padding:
            continue
        recent = state.recent_B[b]
        for k in range(state.tokens_BK.shape[1]):
            is_it = token == state.tokens_BK[b, k]
            for side in range(2):
                knot, part = state.knots_BK[b, k] + side, state.parts_BK[b, k]
                weight = part if side == 1 else 1.0 - part
                error = (1.0 if is_it else 0.0) - state.map_KRN[k, recent, knot]
                state.moves_KRN[k, recent, knot] += weight * error
                state.uses_KRN[k, recent, knot] += weight
            if is_it:
                break
        is_first = 1 if token == state.tokens_BK[b, 0] else 0
        state.recent_B[b] = (2 * recent + is_first) % RECENT
    for k in range(len(state.map_KRN)):
        for r in range(RECENT):
            for n in range(KNOTS):
                if state.uses_KRN[k, r, n] > 0.0:
                    step = state.rate / (1.0 + state.rate * state.uses_KRN[k, r, n])
                    state.map_KRN[k, r, n] += step * state.moves_KRN[k, r, n]
