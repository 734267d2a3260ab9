"""Counts of the byte after each context of bytes, and the probabilities that they give.

A context is read backwards, as in kernels.portable.counts, whose table and keys this uses; here
every context that occurred has a node. Each context backs off to the one a byte shorter, the
shortest to 1 / 256:
    P_k(b) = (n(b) - d) / n + d u / n P_{k-1}(b),    n = sum of n(b), u: distinct followers
(d = 1/2: PPM-D's escape, Howard 1993). A byte is counted in its longest context, and in a shorter
one only as long as it was new in the longer (update exclusion, Moffat 1990): n(b) of a shorter
context is then the number of distinct longer ones that b followed, whatever the order of lanes.
Shapes: N cells, J entries of the undo log, K the highest order, C children.
"""

import numpy as np

from parbyte.kernels.portable.counts import (
    COUNT,
    HEAD,
    KINDS,
    NONE,
    TOKEN,
    Cells,
    Ints,
    add_leaf_,
    context_key,
    count_,
    find,
    older_follower,
    root_of,
)
from parbyte.kernels.portable.evidence import Doubles
from parbyte.kernels.portable.jit import compiled

WRITES = 11
"""Cells that one byte can change in a context, other than cells that were free."""
_ROOT_KEY = 1


@compiled(is_lean=True)
def remember_(recent_K: Ints, byte: int) -> None:
    """Put a byte before the ones that are remembered, the newest first; NONE ends a context."""
    for k in range(len(recent_K) - 1, 0, -1):
        recent_K[k] = recent_K[k - 1]
    if len(recent_K) > 0:
        recent_K[0] = byte


@compiled(is_lean=True)
def find_contexts(cells: Cells, recent_K: Ints, path_K: Ints) -> int:
    """Write the nodes of the known contexts, the shortest first; return the longest's length.

    path_K has one place more than recent_K. Returns -1 if nothing was learned.
    """
    path_K[0] = root_of(cells, 0)
    if path_K[0] < 0:
        return -1
    for length in range(1, len(recent_K) + 1):
        byte = recent_K[length - 1]
        node = NONE if byte == NONE else find(cells, context_key(path_K[length - 1]), byte)
        if node < 0:
            return length - 1
        path_K[length] = node
    return len(recent_K)


@compiled(is_lean=True)
def learn_byte_(cells: Cells, undo: Ints, recent_K: Ints, byte: int, path_K: Ints) -> None:
    """Count a byte after its contexts, the longest first, until it is no news; remember it."""
    longest = find_contexts(cells, recent_K, path_K)
    while longest < 0 or (longest < len(recent_K) and recent_K[longest] != NONE):
        key, older = _ROOT_KEY, 0
        if longest >= 0:
            key, older = context_key(path_K[longest]), recent_K[longest]
        longest += 1
        node = path_K[longest] = add_leaf_(cells, undo, key, older, 0)
        cells[node + COUNT] = cells[node + KINDS] = 0
    while longest >= 0 and count_(cells, undo, path_K[longest], byte, 0) == NONE:
        longest -= 1
    remember_(recent_K, byte)


@compiled(is_lean=True)
def weigh_children_(
    cells: Cells,
    path_K: Ints,
    longest: int,
    discount: float,
    bytes_C: Ints,
    slots: Ints,
    prob_C: Doubles,
) -> None:
    """Write the probabilities of some bytes after a context.

    bytes_C: distinct. slots: int64[256] of NONE, and so it is left.
    """
    share = 1.0
    for c in range(len(bytes_C)):
        slots[bytes_C[c]] = c
        prob_C[c] = 0.0
    for length in range(longest, -1, -1):
        node = path_K[length]
        whole = share / cells[node + COUNT]
        follower = np.int64(cells[node + HEAD])
        for _ in range(cells[node + KINDS]):
            c = slots[cells[follower + TOKEN]]
            if c != NONE:
                prob_C[c] += whole * (cells[follower + COUNT] - discount)
            follower = older_follower(cells, follower)
        share = whole * discount * cells[node + KINDS]
    for c in range(len(bytes_C)):
        prob_C[c] += share / 256.0
        slots[bytes_C[c]] = NONE
