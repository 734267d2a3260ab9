"""The vocabulary as tries of bytes, and what a model of bytes says about every token of it.

A token's weight is the probability of its bytes, times the probability that the text does not go on
as a longer token of the same trie: where the longest token is taken, as tokenizers mostly do, a
node's mass is split among its end and its children. Divided by the sum over all tokens, weights are
a distribution whatever the counts hold. Prefixes that tokens share are computed once; a subtree of
less than a given mass is not entered, its tokens share the mass evenly.

There are two tries: of the tokens that may have an implied space before them, and of the others.
Where the prefix implies the space, the first trie begins behind it, with the space's probability.

Shapes: N nodes, V vocab, K the highest order, C children.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.byte_counts import find_contexts, weigh_children_
from parbyte.kernels.portable.counts import NONE, Cells, Ints
from parbyte.kernels.portable.evidence import Doubles
from parbyte.kernels.portable.jit import compiled

PLAIN, SPACED = 0, 1
"""The roots of the two tries."""
_SPACE = ord(" ")
_LEAST_END = 1e-6
"""Of a node's mass stays with its end, also where its children's probabilities round to one."""


class Trie(NamedTuple):
    """Nodes, level by level: the children of a node stand side by side, in the order of bytes.

    byte, parent: of a node; NONE at a root. child, num_children: the first child and how many.
    start, stop: the node's tokens in tokens_V, which is sorted by bytes. num_here: those that end
    at the node; they come first. silent: tokens of no bytes.
    """

    byte_N: Ints
    parent_N: Ints
    child_N: Ints
    num_children_N: Ints
    start_N: Ints
    stop_N: Ints
    num_here_N: Ints
    tokens_V: Ints
    silent: Ints


class Scratch(NamedTuple):
    """What one row needs while it is made. mass_N, queue_N: of the nodes that are entered."""

    mass_N: Doubles
    queue_N: Ints
    prob_C: Doubles
    slots: Ints
    context_K: Ints
    path_K: Ints


def new_scratch(trie: Trie, order: int) -> Scratch:
    """Return room for the rows of models up to an order."""
    num_nodes = len(trie.byte_N)
    return Scratch(
        mass_N=np.zeros(num_nodes),
        queue_N=np.zeros(num_nodes, np.int64),
        prob_C=np.zeros(256),
        slots=np.full(256, NONE),
        context_K=np.full(order, NONE),
        path_K=np.zeros(order + 1, np.int64),
    )


def build_trie(pieces: Sequence[bytes], takes_space_V: NDArray[np.bool_]) -> Trie:
    """Return the tries of the tokens' bytes; tokens of the same bytes end at the same node."""
    ids = sorted((v for v in range(len(pieces)) if pieces[v]), key=lambda v: (pieces[v], v))
    ids.sort(key=lambda v: bool(takes_space_V[v]))
    num_plain = sum(not takes_space_V[v] for v in ids)
    # byte, parent, start, stop, depth of each node; then what is found when it is opened
    nodes = [(NONE, NONE, 0, num_plain, 0), (NONE, NONE, num_plain, len(ids), 0)]
    opened: list[tuple[int, int, int]] = []
    for node, (_, _, start, stop, depth) in enumerate(nodes):
        at = start
        while at < stop and len(pieces[ids[at]]) == depth:
            at += 1
        num_here, first = at - start, len(nodes)
        while at < stop:
            byte, begin = pieces[ids[at]][depth], at
            while at < stop and pieces[ids[at]][depth] == byte:
                at += 1
            nodes.append((byte, node, begin, at, depth + 1))
        opened.append((first, len(nodes) - first, num_here))
    byte_N, parent_N, start_N, stop_N, _ = np.array(nodes, np.int64).T.copy()
    child_N, num_children_N, num_here_N = np.array(opened, np.int64).T.copy()
    silent = [v for v in range(len(pieces)) if not pieces[v]]
    order_V = np.array(ids, np.int64)
    return Trie(
        byte_N=byte_N,
        parent_N=parent_N,
        child_N=child_N,
        num_children_N=num_children_N,
        start_N=start_N,
        stop_N=stop_N,
        num_here_N=num_here_N,
        tokens_V=order_V,
        silent=np.array(silent, np.int64),
    )


@compiled()
def weigh_tokens_(
    trie: Trie,
    scratch: Scratch,
    cells: Cells,
    recent_K: Ints,
    is_space_implied: bool,
    discount: float,
    threshold: float,
    weight_V: Doubles,
) -> int:
    """Write the weights of all tokens but the silent; return the longest known context's length.

    recent_K: the bytes before, the newest first. threshold: mass below which no node is entered.
    """
    mass_N, queue_N = scratch.mass_N, scratch.queue_N
    longest = find_contexts(cells, recent_K, scratch.path_K)
    mass_N[PLAIN] = mass_N[SPACED] = 1.0
    if is_space_implied:
        bytes_1 = np.array([_SPACE])
        path_K, prob_C = scratch.path_K, scratch.prob_C
        weigh_children_(cells, path_K, longest, discount, bytes_1, scratch.slots, prob_C)
        mass_N[SPACED] = prob_C[0]
    queue_N[0], queue_N[1] = PLAIN, SPACED
    num_queued, at = 2, 0
    while at < num_queued:
        node = queue_N[at]
        at += 1
        _recall_(trie, node, is_space_implied, recent_K, scratch.context_K)
        num_queued = _enter_(trie, scratch, cells, node, discount, threshold, num_queued, weight_V)
    return longest


@compiled()
def _recall_(
    trie: Trie, node: int, is_space_implied: bool, recent_K: Ints, context_K: Ints
) -> None:
    """Write the bytes before a node's children: of its path, the implied space, the lane's."""
    k = 0
    while k < len(context_K) and trie.byte_N[node] != NONE:
        context_K[k] = trie.byte_N[node]
        node = trie.parent_N[node]
        k += 1
    if k < len(context_K) and node == SPACED and is_space_implied:
        context_K[k] = _SPACE
        k += 1
    for older in range(len(context_K) - k):
        context_K[k + older] = recent_K[older]


@compiled()
def _enter_(
    trie: Trie,
    scratch: Scratch,
    cells: Cells,
    node: int,
    discount: float,
    threshold: float,
    num_queued: int,
    weight_V: Doubles,
) -> int:
    """Split a node's mass among its end and its children; return the queue's new length."""
    first, num_children = trie.child_N[node], trie.num_children_N[node]
    bytes_C, path_K = trie.byte_N[first : first + num_children], scratch.path_K
    longest = find_contexts(cells, scratch.context_K, path_K)
    weigh_children_(cells, path_K, longest, discount, bytes_C, scratch.slots, scratch.prob_C)
    end = 1.0
    for c in range(num_children):
        child, mass = first + c, scratch.mass_N[node] * scratch.prob_C[c]
        end -= scratch.prob_C[c]
        if trie.num_children_N[child] > 0 and mass >= threshold:
            scratch.mass_N[child] = mass
            scratch.queue_N[num_queued] = child
            num_queued += 1
        else:
            _share_(trie, trie.start_N[child], trie.stop_N[child], mass, weight_V)
    start, mass = trie.start_N[node], scratch.mass_N[node] * max(end, _LEAST_END)
    _share_(trie, start, start + trie.num_here_N[node], mass, weight_V)
    return num_queued


@compiled()
def _share_(trie: Trie, start: int, stop: int, mass: float, weight_V: Doubles) -> None:
    """Give each of some tokens the same part of a mass."""
    for place in range(start, stop):
        weight_V[trie.tokens_V[place]] = mass / (stop - start)
