"""Exact counts of what followed each context: a suffix trie that grows where contexts repeat.

A context is read backwards: its node's parent is the context one token shorter. A context seen once
is a leaf; it holds only the place of its occurrence, and the history holds the rest. The second
occurrence opens the leaf. So a text costs a few records a token, whatever the highest order.

All lanes share the counts, and which lane is which does not matter. The history is t-major: the
token before place p is at p - lanes. A context ends at BOS: none reaches back across a document's
start. Several tries (of contexts with other tokens left out) share one history and one table.

Contexts live in a table with open addressing, their followers in blocks behind it. A context's key
is a pair (parent, token), stored whole. Followers stand in the order in which they were first seen;
each block after the first begins with a record whose TOKEN is NONE, whose LINK is the follower
before, and whose NEXT is the next block. So they stand in neighbouring cells, and are read newest
first, or looked for oldest first. A free record of the table has no KEY.

field     context                                    follower
TOKEN     oldest token                               token
COUNT     occurrences                                occurrences
KINDS     distinct followers                         contexts one token longer that it followed
LAST      place of a newest occurrence               place of a newest occurrence
KEY       2 + parent's record; the root: 1           -
HEAD      newest follower, or LEAF                   -
LONGER    sum of its followers' KINDS                -
SECOND    second block                               -
The first record belongs to the table: its COUNT is the number of records in use, HEAD the cell
where the blocks begin, LAST the first cell behind them.
Shapes: N cells, H history, J entries of the undo log, K orders.
"""

# In compiled code every whole number is an int64; to a type checker it is one of two types.
# pyright: reportReturnType=false

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled

WIDTH, FOLLOWER = 8, 4
"""Cells of a context, 32 bytes, and of a follower."""
TOKEN, COUNT, KINDS, LAST, KEY, HEAD, LONGER, SECOND = 0, 1, 2, 3, 4, 5, 6, 7
LINK, NEXT = COUNT, KINDS
NONE, LEAF = -1, -2
MAX_ORDER = 22
MOST_RECORDS = MAX_ORDER + 2
"""New contexts that one token can ask for in one trie."""
MOST_CELLS = 16 * FOLLOWER * (MAX_ORDER + 1)
"""Cells of new blocks that one token can ask for in one trie."""
MOST_WRITES = 2 * MOST_RECORDS + 11 * (MAX_ORDER + 1)
"""Cells that one token can change in one trie, other than cells that were free."""
_TABLE_SHARE = 0.55
"""Of the memory; the rest is for blocks."""
_OWN_KEY, _ROOT_KEY = -1, 1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT, _HALF = np.uint64(29), np.uint64(32)

Cells = NDArray[np.int32]
Ints = NDArray[np.int64]


def new_table(num_cells: int) -> Cells:
    """Return an empty table with room for blocks, int32[N]."""
    cells = np.zeros(num_cells, np.int32)
    cells[HEAD] = int(num_cells * _TABLE_SHARE) // WIDTH * WIDTH
    clear_(cells)
    return cells


@compiled(is_entry=True)
def clear_(cells: Cells) -> None:
    """Make a table empty."""
    blocks = cells[HEAD]
    cells[:blocks] = 0
    cells[KEY], cells[COUNT] = _OWN_KEY, 1
    cells[HEAD] = cells[LAST] = blocks


@compiled(is_entry=True)
def has_room(cells: Cells, num_tokens: int, share: float) -> bool:
    """Return whether so many tokens of one trie fit into a share of the table and of the blocks."""
    records = cells[COUNT] + num_tokens * MOST_RECORDS
    block_cells = cells[LAST] - cells[HEAD] + num_tokens * MOST_CELLS
    fit_table = records <= share * (cells[HEAD] // WIDTH)
    return fit_table and block_cells <= share * (len(cells) - cells[HEAD])


@compiled(is_lean=True)
def put_(cells: Cells, undo: Ints, cell: int, value: int) -> None:
    """Write a cell, and log what it held. undo: int64[J, 2]; its first entry counts the others."""
    entry = undo[0, 0] + 1
    undo[entry, 0] = cell
    undo[entry, 1] = cells[cell]
    undo[0, 0] = entry
    cells[cell] = value


@compiled(is_entry=True)
def undo_(cells: Cells, undo: Ints) -> None:
    """Take back every change in the log."""
    for entry in range(undo[0, 0], 0, -1):
        cells[undo[entry, 0]] = undo[entry, 1]
    undo[0, 0] = 0


@compiled(is_lean=True)
def find(cells: Cells, key: int, token: int) -> int:
    """Return the cell where the context of a key begins, or -1 - the free one where it would.

    Updates and queries both come here: there is no other way from a context to its counts.
    """
    num_records = np.int64(cells[HEAD]) // WIDTH
    mixed = np.uint64(key) * _MULTIPLIER + np.uint64(token) * _SECOND
    mixed = (mixed ^ (mixed >> _SHIFT)) * _MULTIPLIER
    record = np.int64(((mixed >> _HALF) * np.uint64(num_records)) >> _HALF)
    while True:
        cell = record * WIDTH
        if cells[cell + KEY] == 0:
            return -1 - cell
        if cells[cell + KEY] == key and cells[cell + TOKEN] == token:
            return cell
        record = record + 1 if record + 1 < num_records else 0


@compiled(is_lean=True)
def root_of(cells: Cells, trie: int) -> int:
    """Return the cell of a trie's root, the context of no tokens; negative if there is none."""
    return find(cells, _ROOT_KEY, trie)


@compiled(is_lean=True)
def context_key(node: int) -> int:
    """Return the key of the contexts one token longer than a node's."""
    return node // WIDTH + 2


@compiled(is_lean=True)
def older_token(history_H: Cells, place: int, order: int, lanes: int, bos_id: int) -> int:
    """Return the oldest of so many tokens before a place, or NONE if the document began later."""
    at = place - order * lanes
    if at < 0 or (order > 1 and history_H[at + lanes] == bos_id):
        return NONE
    return np.int64(history_H[at])


@compiled(is_lean=True)
def older_follower(cells: Cells, follower: int) -> int:
    """Return the follower that was new to a context before this one; this is not the first."""
    below = follower - FOLLOWER
    return np.int64(cells[below + LINK]) if cells[below + TOKEN] == NONE else below


@compiled(is_lean=True)
def find_follower(cells: Cells, node: int, token: int) -> int:
    """Return the cell of a follower of an open node, or NONE."""
    left, size = np.int64(cells[node + KINDS]) - 1, 3
    if left <= 0:
        only = np.int64(cells[node + HEAD])
        return only if left == 0 and cells[only + TOKEN] == token else NONE
    block = np.int64(cells[node + SECOND])
    first = np.int64(cells[block + LINK])
    if cells[first + TOKEN] == token:
        return first
    while True:
        start = block + FOLLOWER
        for follower in range(start, start + min(size, left) * FOLLOWER, FOLLOWER):
            if cells[follower + TOKEN] == token:
                return follower
        left -= size
        if left <= 0:
            return NONE
        block, size = np.int64(cells[block + NEXT]), min(2 * size + 1, 15)


@compiled(is_lean=True)
def add_leaf_(cells: Cells, undo: Ints, key: int, token: int, place: int) -> int:
    """Write a context that occurred once; return its cell."""
    cell = -1 - find(cells, key, token)
    cells[cell + TOKEN] = token
    cells[cell + COUNT] = cells[cell + KINDS] = cells[cell + LONGER] = 1
    cells[cell + LAST] = place
    cells[cell + HEAD] = LEAF
    put_(cells, undo, cell + KEY, key)
    put_(cells, undo, COUNT, cells[COUNT] + 1)
    return cell


@compiled(is_lean=True)
def add_follower_(cells: Cells, undo: Ints, node: int, token: int, place: int, kinds: int) -> None:
    """Write a follower that occurred once behind the `kinds` that a node has.

    The first follower stands alone; then come blocks of 3, 7, and 15 at a time.
    """
    newest = np.int64(cells[node + HEAD])
    cell = newest + FOLLOWER
    if kinds == 0:
        cell = np.int64(cells[LAST])
        put_(cells, undo, LAST, cell + FOLLOWER)
    elif kinds == 1:
        cell = _add_block_(cells, undo, node + SECOND, newest, 3)
    elif kinds == 4:
        cell = _add_block_(cells, undo, newest - 3 * FOLLOWER + NEXT, newest, 7)
    elif kinds == 11:
        cell = _add_block_(cells, undo, newest - 7 * FOLLOWER + NEXT, newest, 15)
    elif kinds > 11 and (kinds - 11) % 15 == 0:
        cell = _add_block_(cells, undo, newest - 15 * FOLLOWER + NEXT, newest, 15)
    cells[cell + TOKEN], cells[cell + LAST] = token, place
    cells[cell + COUNT] = cells[cell + KINDS] = 1
    put_(cells, undo, node + HEAD, cell)


@compiled(is_lean=True)
def _add_block_(cells: Cells, undo: Ints, where: int, newest: int, size: int) -> int:
    """Begin a block behind the newest follower; note it in a cell; return its first follower."""
    block = np.int64(cells[LAST])
    put_(cells, undo, LAST, block + (1 + size) * FOLLOWER)
    put_(cells, undo, where, block)
    cells[block + TOKEN], cells[block + LINK] = NONE, newest
    return block + FOLLOWER


@compiled(is_lean=True)
def count_(cells: Cells, undo: Ints, node: int, token: int, place: int) -> int:
    """Count a follower of an open node; return its cell, or NONE if it is new there."""
    put_(cells, undo, node + COUNT, cells[node + COUNT] + 1)
    put_(cells, undo, node + LAST, place)
    follower = find_follower(cells, node, token)
    if follower >= 0:
        put_(cells, undo, follower + COUNT, cells[follower + COUNT] + 1)
        put_(cells, undo, follower + LAST, place)
        return follower
    add_follower_(cells, undo, node, token, place, np.int64(cells[node + KINDS]))
    put_(cells, undo, node + KINDS, cells[node + KINDS] + 1)
    put_(cells, undo, node + LONGER, cells[node + LONGER] + 1)
    return NONE


@compiled(is_lean=True)
def learn_place_(
    cells: Cells,
    undo: Ints,
    history_H: Cells,
    place: int,
    lanes: int,
    bos_id: int,
    trie: int,
    order: int,
    skip: int,
) -> None:
    """Count the token at a place of the history under each of its contexts in one trie.

    skip: tokens left out between a context and what follows it.
    """
    token, before = np.int64(history_H[place]), place - skip * lanes
    node, follower = root_of(cells, trie), NONE
    if node < 0:
        node = add_leaf_(cells, undo, _ROOT_KEY, trie, place)
    else:
        _open_if_leaf_(cells, undo, history_H, node, 0, lanes, bos_id, order, skip)
        follower = count_(cells, undo, node, token, place)
    for length in range(1, order + 1):
        older = older_token(history_H, before, length, lanes, bos_id)
        if older == NONE or cells[node + HEAD] == LEAF:
            return
        child = find(cells, context_key(node), older)
        is_new = child < 0
        below = NONE
        if is_new:
            child = add_leaf_(cells, undo, context_key(node), older, place)
        else:
            _open_if_leaf_(cells, undo, history_H, child, length, lanes, bos_id, order, skip)
            below = count_(cells, undo, child, token, place)
        if below == NONE and follower != NONE:
            put_(cells, undo, follower + KINDS, cells[follower + KINDS] + 1)
            put_(cells, undo, node + LONGER, cells[node + LONGER] + 1)
        if is_new:
            return
        node, follower = child, below


@compiled(is_lean=True)
def _open_if_leaf_(
    cells: Cells,
    undo: Ints,
    history_H: Cells,
    node: int,
    length: int,
    lanes: int,
    bos_id: int,
    order: int,
    skip: int,
) -> None:
    """Turn a leaf into a node with one follower and, below it, the leaf of one token more."""
    if cells[node + HEAD] != LEAF:
        return
    once = np.int64(cells[node + LAST])
    add_follower_(cells, undo, node, np.int64(history_H[once]), once, 0)
    if length < order:
        older = older_token(history_H, once - skip * lanes, length + 1, lanes, bos_id)
        if older != NONE:
            add_leaf_(cells, undo, context_key(node), older, once)


@compiled(is_lean=True)
def walk_contexts(
    cells: Cells,
    history_H: Cells,
    place: int,
    lanes: int,
    bos_id: int,
    trie: int,
    order: int,
    skip: int,
    path_K: Ints,
) -> int:
    """Write the nodes of the contexts before a place, the root first; return the longest's length.

    A leaf's longer contexts have no node: there path_K repeats the leaf for as many tokens as its
    one occurrence agrees. Returns -1 if nothing was learned.
    """
    node, before = root_of(cells, trie), place - skip * lanes
    path_K[0] = node
    if node < 0:
        return -1
    for length in range(1, order + 1):
        older = older_token(history_H, before, length, lanes, bos_id)
        if older == NONE:
            return length - 1
        if cells[node + HEAD] == LEAF:
            once = cells[node + LAST] - skip * lanes
            if older_token(history_H, once, length, lanes, bos_id) != older:
                return length - 1
        else:
            node = find(cells, context_key(node), older)
            if node < 0:
                return length - 1
        path_K[length] = node
    return order


@compiled(is_entry=True, is_lean=True)
def learn_history_(
    cells: Cells,
    undo: Ints,
    history_H: Cells,
    length: int,
    lanes: int,
    bos_id: int,
    orders_S: Ints,
    skips_S: Ints,
) -> int:
    """Count the history's tokens as long as they fill no more than half of an empty table.

    Returns `length`, or the place of the first token that did not fit. Nothing is to be taken back.
    """
    for place in range(lanes, length):
        if not has_room(cells, len(orders_S), 0.5):
            return place
        is_padding = history_H[place] == bos_id and history_H[place - lanes] == bos_id
        for trie in range(0 if is_padding else len(orders_S)):
            order, skip = orders_S[trie], skips_S[trie]
            learn_place_(cells, undo, history_H, place, lanes, bos_id, trie, order, skip)
        undo[0, 0] = 0
    return length


@compiled(is_entry=True)
def forget_(
    cells: Cells,
    undo: Ints,
    history_H: Cells,
    length: int,
    lanes: int,
    bos_id: int,
    orders_S: Ints,
    skips_S: Ints,
) -> int:
    """Forget the older half of the history: the table is made anew from the newer half.

    Repeated until that fills no more than half the table. Returns the length that is left.
    """
    kept = length
    while True:
        half = kept // lanes // 2 * lanes
        for at in range(half):
            history_H[at] = history_H[kept - half + at]
        kept = half
        clear_(cells)
        learned = learn_history_(cells, undo, history_H, kept, lanes, bos_id, orders_S, skips_S)
        if learned == kept or kept == 0:
            return kept
