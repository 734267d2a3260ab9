"""What the experts say about a position: inputs that are zero for nearly all tokens.

An expert that backs off to the row below it differs from it by one factor, its share, but for the
tokens that it has seen. So an expert i is a share and an input, and its distribution is
    q_i(v) = share_i p(v) exp(f_i(v)),    f_i(v) = 0 where it has not seen v.
N-gram contexts stand in a chain, each on the shorter one, the shortest on the row below:
    q_k(v) = (a(v) + c q_{k-1}(v)) / (sum a + c),    f_k(v) = log(1 + a(v) / (c q_{k-1}(v))),
with a and c by the smoothing method; the sum of all f_k and the product of their shares are those
of the chain's posterior. Beside its inputs each candidate has states, one a group of orders: how
often it was seen and how often others were.

Shapes: B lanes, V vocab, C candidates (at most V), I inputs, K groups of all tries, and the match.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.counts import (
    COUNT,
    HEAD,
    KINDS,
    LAST,
    LEAF,
    TOKEN,
    Cells,
    older_follower,
    walk_contexts,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import log32

GROUPS = 8
"""Orders 0, 1, 2, 3, 4, 5-6, 7-10 and 11-22 share what is learned about them."""
STATES = 60
"""States of a group: 5 sizes of the count, 6 of the others' count, newest or not."""
METHODS = ("dirichlet", "witten-bell", "ppmd", "kneser-ney")
_DIRICHLET, _WITTEN_BELL, _PPMD, _KNESER_NEY = 0, 1, 2, 3

_LARGEST_UNIT = 1e16
SMALLEST_SHARE = 1e-15
"""Of the shorter contexts: below it they count no less, so that no ratio overflows."""

_ZERO, _ONE = np.float32(0), np.float32(1)
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Experts(NamedTuple):
    """Which experts there are, and what they have seen.

    Trie s has order, tokens left out, method, strength and lowest order. strength: dirichlet's
    concentration, kneser-ney's discount. match: shortest match, 0: no match expert. hits, tries:
    of each length of a match. length: tokens of the history. recent_V: each token's fading count,
    in units of recent[0]; recent[1]: their sum. fading: what is left after one step, 0: no such
    expert.
    ages: tokens of each lane since its document, or the lane, began.
    """

    cells: Cells
    undo: Ints
    history: Cells
    length: Ints
    ages_B: Ints
    orders: Ints
    skips: Ints
    methods: Ints
    strengths: Doubles
    lowest: Ints
    match: int
    hits: Doubles
    tries: Doubles
    recent_V: Floats
    recent: Doubles
    fading: float
    concentration: float
    num_lanes: int
    bos_id: int


class Evidence(NamedTuple):
    """Every lane's candidates with their inputs and states, from prediction to learning.

    slots: a token's place among the candidates, -1: it is none. recent_BV: input of the fading
    counts, of all tokens. facts: the number of candidates, the longest context's order, the match's
    length and its token. shares: of the chain, the match and the fading counts.
    """

    tokens_BC: Cells
    slots_BV: Cells
    ratios_BC: Floats
    inputs_BCI: Floats
    states_BCK: Cells
    recent_BV: Floats
    facts_B4: Ints
    shares_B3: Doubles
    path_BK: Ints


NUM, ORDER, MATCH_LENGTH, MATCH_TOKEN = 0, 1, 2, 3
CHAIN, MATCH, RECENT = 0, 1, 2


@compiled(is_lean=True)
def group_of(order: int) -> int:
    """Return the group of an order."""
    if order <= 4:
        return order
    return 5 if order <= 6 else 6 if order <= 10 else 7


@compiled(is_lean=True)
def escape(method: int, strength: float, kinds: int) -> float:
    """Return c, what a level leaves to the level below, in units of its counts."""
    if method == _DIRICHLET:
        return strength
    if method == _WITTEN_BELL:
        return np.float64(kinds)
    return (0.5 if method == _PPMD else strength) * kinds


@compiled(is_lean=True)
def mass(method: int, strength: float, count: int) -> float:
    """Return a(v), what a level gives to a token that it has seen so often."""
    if method <= _WITTEN_BELL:
        return np.float64(count)
    return count - (0.5 if method == _PPMD else strength)


@compiled(is_lean=True)
def counts_longer(experts: Experts, trie: int, order: int) -> bool:
    """Return whether a level counts the longer contexts that a token followed, not the token."""
    return experts.methods[trie] == _KNESER_NEY and order < experts.orders[trie]


@compiled(is_lean=True)
def find_path_(experts: Experts, trie: int, lane: int, path_K: Ints) -> int:
    """Write the nodes of a lane's contexts in a trie; return the longest's length, -1: none."""
    return walk_contexts(
        experts.cells,
        experts.history,
        experts.length[0] + lane,
        experts.num_lanes,
        experts.bos_id,
        trie,
        experts.orders[trie],
        experts.skips[trie],
        path_K,
    )


@compiled(is_lean=True)
def candidate(evidence: Evidence, lane: int, token: int) -> int:
    """Return a token's slot; make it a candidate if it is none."""
    slot = evidence.slots_BV[lane, token]
    if slot < 0:
        slot = evidence.facts_B4[lane, NUM]
        evidence.facts_B4[lane, NUM] = slot + 1
        evidence.slots_BV[lane, token] = slot
        evidence.tokens_BC[lane, slot] = token
        evidence.ratios_BC[lane, slot] = _ONE
        for i in range(evidence.inputs_BCI.shape[2]):
            evidence.inputs_BCI[lane, slot, i] = _ZERO
        for k in range(evidence.states_BCK.shape[2]):
            evidence.states_BCK[lane, slot, k] = -1
    return slot


@compiled(is_lean=True)
def _size(count: int) -> int:
    """Return the class 0..4 of a count of at least 1."""
    return 0 if count == 1 else 1 if count == 2 else 2 if count <= 4 else 3 if count <= 8 else 4


@compiled(is_lean=True)
def _rest(count: int) -> int:
    """Return the class 0..5 of the count of the others."""
    if count <= 1:
        return count
    return 2 if count <= 3 else 3 if count <= 8 else 4 if count <= 30 else 5


@compiled(is_lean=True)
def _support_(
    evidence: Evidence, lane: int, token: int, source: int, gain: np.float32, state: int
) -> None:
    """Note that a level supports a token: `gain` is a / (c kappa p), kappa p its backed-off rest.

    The ratio to kappa p grows from r to r + gain, so that the input is log((r + gain) / r).
    """
    slot = candidate(evidence, lane, token)
    before = evidence.ratios_BC[lane, slot]
    evidence.ratios_BC[lane, slot] = before + gain
    evidence.inputs_BCI[lane, slot, 1 + source] += log32(_ONE + gain / before)
    evidence.states_BCK[lane, slot, source] = source * STATES + state


@compiled(is_lean=True)
def _gather_level_(
    experts: Experts,
    trie: int,
    order: int,
    node: int,
    kappa: float,
    prob_V: Floats,
    evidence: Evidence,
    lane: int,
) -> float:
    """Note what one context's followers gain; return its factor for all others.

    kappa: the product of the factors so far.
    """
    cells, method, strength = experts.cells, experts.methods[trie], experts.strengths[trie]
    source = trie * GROUPS + group_of(order)
    if cells[node + HEAD] == LEAF:
        token = experts.history[cells[node + LAST]]
        left, weight = escape(method, strength, 1), mass(method, strength, 1)
        gain = np.float32(weight / (left * kappa * np.float64(prob_V[token])))
        _support_(evidence, lane, token, source, gain, 1)
        return left / (left + weight)
    use_longer = counts_longer(experts, trie, order)
    left = escape(method, strength, cells[node + KINDS])
    newest = cells[node + LAST] // experts.num_lanes * experts.num_lanes
    follower, seen = np.int64(cells[node + HEAD]), 0.0
    for _ in range(cells[node + KINDS]):
        token, count = cells[follower + TOKEN], cells[follower + COUNT]
        weight = mass(method, strength, cells[follower + KINDS] if use_longer else count)
        gain = np.float32(weight / (left * kappa * np.float64(prob_V[token])))
        is_newest = 1 if cells[follower + LAST] >= newest else 0
        state = (_size(count) * 6 + _rest(cells[node + COUNT] - count)) * 2 + is_newest
        _support_(evidence, lane, token, source, gain, state)
        seen += weight
        follower = older_follower(cells, follower)
    return left / (left + seen)


@compiled(is_lean=True)
def gather_(experts: Experts, prob_V: Floats, evidence: Evidence, lane: int) -> None:
    """Collect a lane's candidates with their inputs and states; prob_V: the row below."""
    for slot in range(evidence.facts_B4[lane, NUM]):
        evidence.slots_BV[lane, evidence.tokens_BC[lane, slot]] = -1
    evidence.facts_B4[lane, :] = 0
    evidence.shares_B3[lane, :] = 1.0
    path_K, kappa = evidence.path_BK[lane], 1.0
    for trie in range(len(experts.orders)):
        top = find_path_(experts, trie, lane, path_K)
        for order in range(experts.lowest[trie], top + 1):
            node = path_K[order]
            kappa *= _gather_level_(experts, trie, order, node, kappa, prob_V, evidence, lane)
            kappa = max(kappa, SMALLEST_SHARE)
        if trie == 0:
            evidence.facts_B4[lane, ORDER] = max(top, 0)
            if experts.match > 0 and top >= experts.match:
                _note_match_(experts, path_K[top], top, prob_V, evidence, lane)
    evidence.shares_B3[lane, CHAIN] = kappa
    if experts.fading > 0.0:
        _note_recent_(experts, prob_V, evidence, lane)


@compiled(is_lean=True)
def _note_match_(
    experts: Experts, node: int, length: int, prob_V: Floats, evidence: Evidence, lane: int
) -> None:
    """Support the newest follower of the longest context, the smallest token if lanes tie."""
    cells = experts.cells
    token = experts.history[cells[node + LAST]]
    newest = cells[node + LAST] // experts.num_lanes * experts.num_lanes
    follower = np.int64(cells[node + HEAD])
    for _ in range(0 if follower == LEAF else cells[node + KINDS]):
        if cells[follower + LAST] >= newest:
            token = min(token, cells[follower + TOKEN])
        follower = older_follower(cells, follower)
    hit = (experts.hits[length] + 0.5) / (experts.tries[length] + 1.0)
    slot = candidate(evidence, lane, token)
    source = len(experts.orders) * GROUPS
    gain = np.float32(hit / ((1.0 - hit) * np.float64(prob_V[token])))
    evidence.inputs_BCI[lane, slot, 1 + source] = log32(_ONE + gain)
    evidence.states_BCK[lane, slot, source] = source * STATES + length
    evidence.shares_B3[lane, MATCH] = 1.0 - hit
    evidence.facts_B4[lane, MATCH_LENGTH] = length
    evidence.facts_B4[lane, MATCH_TOKEN] = token


@compiled(is_lean=True)
def _note_recent_(experts: Experts, prob_V: Floats, evidence: Evidence, lane: int) -> None:
    """Write the input of the fading counts: the posterior of one Dirichlet level."""
    weight, out_V = experts.concentration, evidence.recent_BV[lane]
    factor = np.float32(1.0 / (weight * experts.recent[0]))
    for v in range(len(out_V)):
        out_V[v] = log32(_ONE + experts.recent_V[v] * factor / prob_V[v])
    evidence.shares_B3[lane, RECENT] = weight / (weight + experts.recent[1])


@compiled(is_lean=True)
def fade_(experts: Experts) -> None:
    """Let all counts fade by one step of time: the unit grows instead."""
    experts.recent[0] /= experts.fading
    experts.recent[1] *= experts.fading
    if experts.recent[0] > _LARGEST_UNIT:
        for v in range(len(experts.recent_V)):
            experts.recent_V[v] *= np.float32(1.0 / _LARGEST_UNIT)
        experts.recent[0] /= _LARGEST_UNIT


@compiled(is_lean=True)
def note_token_(experts: Experts, evidence: Evidence, lane: int, token: int) -> None:
    """Learn a token: the fading counts, and how often matches of this length are right."""
    if experts.fading > 0.0:
        experts.recent_V[token] += np.float32(experts.recent[0])
        experts.recent[1] += 1.0
    length = evidence.facts_B4[lane, MATCH_LENGTH]
    if length > 0:
        experts.tries[length] += 1.0
        experts.hits[length] += 1.0 if evidence.facts_B4[lane, MATCH_TOKEN] == token else 0.0
