"""Exact counts of what followed each context, learned of many lanes and positions at once.

The suffix trie of kernels.portable.counts, in tensors on any device: a context is read backwards,
its parent is the context one token shorter, one seen once is a leaf, and its second occurrence
opens it. Here a chunk is learned order by order, all its tokens together. Loops run over orders and
probes, never over tokens; what is added up are whole numbers, so that no order of adding matters.

Contexts and their followers are the keys of one table with open addressing; where a key stands is
its name. A key is (2 x context's slot + (0: longer context, 1: follower)) x vocab + token, whole.
A context's followers, slots and tokens, stand in a span of a pool, which is moved when it grows.

cell      context                                    follower
COUNT     START: its span in the pool                occurrences
KINDS     SIZE: distinct followers                   contexts one token longer that it followed
ONCE      place of the one occurrence, NONE: open    -
The history is t-major: the token before place p is at p - lanes. A context ends at BOS.
Shapes: S slots (a power of two), P pool, H history, N items, U distinct keys, A contexts, M spans'
members.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.kernels.key_table import NONE, find, insert_

COUNT, KINDS, ONCE = 0, 1, 2
START, SIZE = COUNT, KINDS
USED, END, LENGTH = 0, 1, 2
"""Marks: slots in use, where the pool is free, tokens of the history."""
SLOT_BYTES, POOLED_BYTES = 8 + 4 * 3, 4 * 2
FULL_SHARE = 0.75
"""Of the slots: more keys make probes long."""


class Full(Exception):
    """The table or the pool is full; counts that were being learned are of no use."""


class Counts(NamedTuple):
    """Counts of one text. Slot S of the cells is nobody's: the root's parent."""

    keys_S: Tensor
    cells: Tensor
    pool_2P: Tensor
    history_H: Tensor
    marks: NDArray[np.int64]
    order: int
    vocab_size: int
    num_lanes: int
    bos_id: int


def new_counts(
    num_slots: int,
    num_pooled: int,
    num_tokens: int,
    *,
    order: int,
    vocab_size: int,
    num_lanes: int,
    bos_id: int,
    device: torch.device | str = "cpu",
) -> Counts:
    """Return counts of nothing, and a history of BOS in each lane. num_slots: a power of two."""
    counts = Counts(
        keys_S=torch.empty(num_slots, dtype=torch.int64, device=device),
        cells=torch.empty((3, num_slots + 1), dtype=torch.int32, device=device),
        pool_2P=torch.empty((2, num_pooled), dtype=torch.int32, device=device),
        history_H=torch.full((num_tokens,), bos_id, dtype=torch.int32, device=device),
        marks=np.array([0, 0, num_lanes]),
        order=order,
        vocab_size=vocab_size,
        num_lanes=num_lanes,
        bos_id=bos_id,
    )
    _clear_(counts)
    return counts


def most_keys(order: int, num_tokens: int) -> int:
    """Return the most keys that so many tokens learned at once can ask of an empty table.

    Each token is counted once an order and is one leaf; an open context has two occurrences.
    """
    return (order + 1) * num_tokens + num_tokens + order * num_tokens // 2 + 1


def count_bytes(counts: Counts) -> int:
    """Return the bytes of all tensors."""
    tensors = (counts.keys_S, counts.cells, counts.pool_2P, counts.history_H)
    return sum(tensor.nbytes for tensor in tensors)


def older_token(counts: Counts, places_N: Tensor, order: int) -> Tensor:
    """Return the oldest of so many tokens before each place, NONE if the document began later.

    Orders are asked for one after the other. Order 0 has one context, whose token is 0.
    """
    if order == 0:
        return torch.zeros_like(places_N)
    at_N = places_N - order * counts.num_lanes
    begins_later_N = at_N < 0
    if order > 1:
        newer_N = counts.history_H[(at_N + counts.num_lanes).clamp(min=0)]
        begins_later_N |= newer_N == counts.bos_id
    return counts.history_H[at_N.clamp(min=0)].long().masked_fill(begins_later_N, NONE)


def write_ahead_(counts: Counts, tokens_BT: Tensor) -> None:
    """Write tokens behind the history, where contexts may hold them; they are not yet of it."""
    start = int(counts.marks[LENGTH])
    counts.history_H[start : start + tokens_BT.numel()] = tokens_BT.T.reshape(-1)


def observe_(counts: Counts, chunk_BT: Tensor, num_rows: int) -> None:
    """Count a chunk, and make room in the history for the next, of at most so many positions.

    When the memory is full, the older half of the text is forgotten.
    """
    write_ahead_(counts, chunk_BT)
    start = int(counts.marks[LENGTH])
    stop = start + chunk_BT.numel()
    counts.marks[LENGTH] = stop
    is_full = stop + counts.num_lanes * num_rows > len(counts.history_H)
    try:
        _learn_(counts, start, stop)
    except Full:
        is_full = True
    while is_full:
        _drop_half_(counts)
        is_full = not recount_(counts, num_rows)


def recount_(counts: Counts, num_rows: int) -> bool:
    """Count the history anew, so many positions at a time.

    Returns whether that took no more than half of the room; if not, the counts are of no use.
    """
    _clear_(counts)
    length, piece = int(counts.marks[LENGTH]), num_rows * counts.num_lanes
    try:
        for start in range(counts.num_lanes, length, piece):
            _learn_(counts, start, min(start + piece, length))
    except Full:
        return False
    is_roomy = counts.marks[USED] <= 0.5 * FULL_SHARE * len(counts.keys_S)
    return bool(is_roomy and counts.marks[END] <= 0.5 * counts.pool_2P.shape[1])


def _drop_half_(counts: Counts) -> None:
    length, lanes = int(counts.marks[LENGTH]), counts.num_lanes
    kept = length // lanes // 2 * lanes
    counts.history_H[:kept] = counts.history_H[length - kept : length].clone()
    counts.marks[LENGTH] = kept


def _clear_(counts: Counts) -> None:
    counts.keys_S.fill_(NONE)
    counts.cells.zero_()
    counts.cells[ONCE, -1] = NONE
    counts.marks[:LENGTH] = 0


def _learn_(counts: Counts, start: int, stop: int) -> None:
    """Count the tokens at some places of the history under all their contexts.

    An item is a place, a context of it that is known, and there the follower that its token is.
    BOS after BOS, what an ended lane is fed, teaches nothing. Raises Full.
    """
    history_H, lanes = counts.history_H, counts.num_lanes
    is_bos_N = history_H[start - lanes : stop] == counts.bos_id
    is_padding_N = is_bos_N[lanes:] & is_bos_N[:-lanes]
    places_N = torch.arange(start, stop, device=history_H.device)[~is_padding_N]
    nobody_N = torch.full_like(places_N, len(counts.keys_S))
    items_3N = torch.stack([places_N, nobody_N, nobody_N])
    for order in range(counts.order + 1):
        older_N = older_token(counts, items_3N[0], order)
        items_3N, older_N = items_3N[:, older_N != NONE], older_N[older_N != NONE]
        if not len(older_N):
            return
        places_N, parents_N, above_N = items_3N
        nodes_N, is_leaf_N, opened_2R = _enter_(counts, places_N, parents_N, older_N)
        tokens_N = history_H[places_N].long()
        followers_N = _count_(counts, nodes_N, tokens_N, above_N)
        items_3N = torch.stack([places_N, nodes_N, followers_N])[:, ~is_leaf_N]
        tokens_R = history_H[opened_2R[0]].long()
        followers_R = find(counts.keys_S, _follower_keys(counts, opened_2R[1], tokens_R))
        items_3N = torch.cat([items_3N, torch.cat([opened_2R, followers_R[None]])], dim=1)


def _enter_(
    counts: Counts, places_N: Tensor, parents_N: Tensor, older_N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Go one token further back with each item.

    Returns the contexts, whether each is a leaf, and place and context of what leaves were opened.
    """
    keys_N = _node_keys(counts, parents_N, older_N)
    keys_U, distinct_N, times_U = keys_N.unique(return_inverse=True, return_counts=True)
    nodes_U = insert_(counts.keys_S, keys_U)
    is_new_U = counts.cells[SIZE, nodes_U] == 0
    _take_slots_(counts, is_new_U)
    once_U = counts.cells[ONCE, nodes_U].long()
    is_opened_U, is_leaf_U = ~is_new_U & (once_U != NONE), is_new_U & (times_U == 1)
    place_U = torch.empty_like(nodes_U)
    place_U[distinct_N] = places_N
    counts.cells[ONCE, nodes_U] = torch.where(is_leaf_U, place_U, NONE).int()
    opened_2R = torch.stack([once_U, nodes_U])[:, is_opened_U]
    return nodes_U[distinct_N], is_leaf_U[distinct_N], opened_2R


def _count_(counts: Counts, nodes_N: Tensor, tokens_N: Tensor, above_N: Tensor) -> Tensor:
    """Count each item's token as follower of its context; return where the followers stand.

    above_N: the same token as follower of the context one token shorter.
    """
    keys_N = _follower_keys(counts, nodes_N, tokens_N)
    keys_U, distinct_N, times_U = keys_N.unique(return_inverse=True, return_counts=True)
    slots_U = insert_(counts.keys_S, keys_U)
    is_new_U = counts.cells[COUNT, slots_U] == 0
    _take_slots_(counts, is_new_U)
    counts.cells[COUNT].scatter_add_(0, slots_U, times_U.int())
    above_U = torch.empty_like(slots_U)
    above_U[distinct_N] = above_N
    ones_U = torch.ones_like(above_U[is_new_U], dtype=torch.int32)
    counts.cells[KINDS].scatter_add_(0, above_U[is_new_U], ones_U)
    _list_(counts, keys_U[is_new_U], slots_U[is_new_U])
    return slots_U[distinct_N]


def _list_(counts: Counts, keys_F: Tensor, slots_F: Tensor) -> None:
    """Put new followers into the spans of their contexts; keys_F: sorted, so context by context."""
    cells, pool_2P = counts.cells, counts.pool_2P
    nodes_A, news_A = (keys_F // counts.vocab_size >> 1).unique_consecutive(return_counts=True)
    sizes_A = cells[SIZE, nodes_A].long()
    is_moved_A = _capacity(sizes_A + news_A) > _capacity(sizes_A)
    moved_A, rooms_A = nodes_A[is_moved_A], _capacity(sizes_A + news_A)[is_moved_A]
    starts_A = rooms_A.cumsum(0) - rooms_A + int(counts.marks[END])
    counts.marks[END] += int(rooms_A.sum())
    if counts.marks[END] > pool_2P.shape[1]:
        raise Full
    owners_M, ranks_M = _members(sizes_A[is_moved_A])
    old_M = cells[START, moved_A].long()[owners_M] + ranks_M
    pool_2P[:, starts_A[owners_M] + ranks_M] = pool_2P[:, old_M]
    cells[START, moved_A] = starts_A.int()
    owners_M, ranks_M = _members(news_A)
    at_M = (cells[START, nodes_A] + sizes_A)[owners_M] + ranks_M
    pool_2P[:, at_M] = torch.stack([slots_F, keys_F % counts.vocab_size]).int()
    cells[SIZE, nodes_A] = (sizes_A + news_A).int()


def walk(counts: Counts, places_N: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each order with the items whose context is known, and their contexts.

    A leaf stands for its longer contexts, too, as far as its one occurrence agrees.
    """
    items_A = torch.arange(len(places_N), device=places_N.device)
    nodes_A = torch.full_like(places_N, len(counts.keys_S))
    for order in range(counts.order + 1):
        older_A = older_token(counts, places_N[items_A], order)
        is_there_A = older_A != NONE
        items_A, nodes_A, older_A = items_A[is_there_A], nodes_A[is_there_A], older_A[is_there_A]
        once_A = counts.cells[ONCE, nodes_A].long()
        agrees_A = older_token(counts, once_A, order) == older_A
        is_open_A, next_A = once_A == NONE, nodes_A.masked_fill(~agrees_A, NONE)
        keys_A = _node_keys(counts, nodes_A, older_A)
        next_A[is_open_A] = find(counts.keys_S, keys_A[is_open_A])
        items_A, nodes_A = items_A[next_A != NONE], next_A[next_A != NONE]
        if not len(items_A):
            return
        yield order, items_A, nodes_A


def followers(counts: Counts, nodes_A: Tensor, field: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all contexts' followers: whose each is, its token, and its COUNT or KINDS, ints[M].

    Where a document begins there are no longer contexts: KINDS are 1 at least.
    """
    owners_M, ranks_M = _members(counts.cells[SIZE, nodes_A].long())
    at_M = counts.cells[START, nodes_A][owners_M] + ranks_M
    slots_M, tokens_M = counts.pool_2P[:, at_M].long()
    return owners_M, tokens_M, counts.cells[field, slots_M].clamp(min=1)


def _node_keys(counts: Counts, nodes_N: Tensor, older_N: Tensor) -> Tensor:
    return nodes_N * 2 * counts.vocab_size + older_N


def _follower_keys(counts: Counts, nodes_N: Tensor, tokens_N: Tensor) -> Tensor:
    return (nodes_N * 2 + 1) * counts.vocab_size + tokens_N


def _take_slots_(counts: Counts, is_new_U: Tensor) -> None:
    counts.marks[USED] += int(is_new_U.sum())
    if counts.marks[USED] > FULL_SHARE * len(counts.keys_S):
        raise Full


def _capacity(sizes_A: Tensor) -> Tensor:
    """Return the length of the span of so many followers: the next power of two, or 0."""
    return (sizes_A > 0).long() << torch.frexp(sizes_A.double() - 0.5).exponent


def _members(sizes_A: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each member of spans of these lengths its span and its rank there, int64[M]."""
    owners_M = torch.arange(len(sizes_A), device=sizes_A.device).repeat_interleave(sizes_A)
    firsts_A = sizes_A.cumsum(0) - sizes_A
    return owners_M, torch.arange(len(owners_M), device=sizes_A.device) - firsts_A[owners_M]
