"""The trie's counts are those of a dictionary, whatever is taken back or forgotten.

The reference counts every context of every order from nothing, with tuples as keys.
Shapes: B lanes, T positions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parbyte.kernels.portable import counts as trie
from parbyte.kernels.portable.counts import COUNT, HEAD, KINDS, LAST, LEAF, LONGER, TOKEN

BOS = 0
Ints = NDArray[np.int64]
Context = tuple[int, ...]


def context_before(lane_T: Ints, t: int, order: int, skip: int) -> Context | None:
    """Return the `order` tokens before t, or None if the document or the text began later."""
    end = t - skip
    if end - order < 0:
        return None
    context = tuple(int(token) for token in lane_T[end - order : end])
    return None if BOS in context[1:] else context


def occurrences(lanes_BT: Ints, order: int, skip: int) -> Iterator[tuple[Context, int, object]]:
    """Yield (context, follower, oldest token of the context one longer) of every learned token."""
    for lane_T in lanes_BT:
        for t in range(1, len(lane_T)):
            context = context_before(lane_T, t, order, skip)
            is_padding = lane_T[t] == BOS and lane_T[t - 1] == BOS
            if context is not None and not is_padding:
                longer = context_before(lane_T, t, order + 1, skip)
                yield context, int(lane_T[t]), longer[0] if longer else None


class Table:
    """A trie over lanes, learned token by token in the order of time; BOS stands before all."""

    def __init__(self, lanes_BT: Ints, order: int, skip: int = 0, cells: int = 1 << 16) -> None:
        self.lanes_BT = np.concatenate([np.full((len(lanes_BT), 1), BOS), lanes_BT], axis=1)
        self.order, self.skip = order, skip
        self.cells = trie.new_table(cells)
        self.undo = np.zeros((1 << 18, 2), np.int64)
        self.history = np.ascontiguousarray(self.lanes_BT.T).ravel().astype(np.int32)
        self.lanes = len(lanes_BT)

    def learn(self, start: int, stop: int) -> None:
        for place in range(start * self.lanes, stop * self.lanes):
            before = place - self.lanes
            if self.history[place] == BOS and self.history[before] == BOS:
                continue
            trie.learn_place_(
                self.cells,
                self.undo,
                self.history,
                place,
                self.lanes,
                BOS,
                0,
                self.order,
                self.skip,
            )

    def contexts(self) -> trie.Cells:
        """Return the table without its blocks; what a free record holds means nothing."""
        records = self.cells[: self.cells[HEAD]].copy().reshape(-1, trie.WIDTH)
        records[records[:, trie.KEY] == 0] = 0
        return records

    def followers(self, node: int) -> dict[int, tuple[int, int]]:
        """Return token -> (count, kinds) of a node's followers."""
        cells = self.cells
        if cells[node + HEAD] == LEAF:
            return {int(self.history[cells[node + LAST]]): (1, 1)}
        found, follower = {}, int(cells[node + HEAD])
        for _ in range(cells[node + KINDS]):
            record = cells[follower : follower + trie.FOLLOWER]
            found[int(record[TOKEN])] = (int(record[COUNT]), int(record[KINDS]))
            follower = trie.older_follower(cells, follower)
        return found

    def path(self, lane: int, t: int) -> list[int]:
        path_K = np.zeros(trie.MAX_ORDER + 1, np.int64)
        place = t * self.lanes + lane
        longest = trie.walk_contexts(
            self.cells,
            self.history,
            place,
            self.lanes,
            BOS,
            0,
            self.order,
            self.skip,
            path_K,
        )
        return path_K[: longest + 1].tolist()


def check_against_dictionaries(table: Table, lanes_BT: Ints) -> None:
    """Walk to the context before every position, and compare every order's followers."""
    for order in range(table.order + 1):
        counts: dict[Context, Counter[int]] = defaultdict(Counter)
        longer: dict[tuple[Context, int], set[object]] = defaultdict(set)
        for context, token, older in occurrences(lanes_BT, order, table.skip):
            counts[context][token] += 1
            longer[context, token].add(older)
        for lane, lane_T in enumerate(lanes_BT):
            for t in range(1, len(lane_T) + 1):
                context = context_before(lane_T, t, order, table.skip)
                path = table.path(lane, t)
                if context is None or context not in counts:
                    assert len(path) <= order
                    continue
                found = table.followers(path[order])
                assert {v: n for v, (n, _) in found.items()} == counts[context]
                is_leaf = table.cells[path[order] + HEAD] == LEAF
                if order < table.order and not is_leaf:
                    kinds = {v: len(longer[context, v]) for v in found}
                    assert {v: k for v, (_, k) in found.items()} == kinds
                    node = path[order]
                    assert table.cells[node + LONGER] == sum(kinds.values())
                    assert table.cells[node + COUNT] == sum(counts[context].values())
                    assert table.cells[node + KINDS] == len(found)


def lanes_of(seed: int, num_lanes: int, length: int, vocab: int) -> Ints:
    """Draw lanes that repeat themselves and each other, with documents and an ended lane."""
    rng = np.random.default_rng(seed)
    motif = rng.integers(1, vocab, length // 3 + 1)
    lanes_BT = np.tile(motif, (num_lanes, 4))[:, :length]
    is_noise = rng.random(lanes_BT.shape) < 0.15
    lanes_BT[is_noise] = rng.integers(0, vocab, int(is_noise.sum()))
    lanes_BT[-1, length - 5 :] = BOS
    return lanes_BT.astype(np.int64)


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize(("lanes", "order", "vocab"), [(1, 22, 5), (3, 4, 3), (2, 1, 9)])
def test_counts_equal_a_dictionary(lanes: int, order: int, vocab: int, skip: int) -> None:
    lanes_BT = lanes_of(lanes, lanes, 60, vocab)
    table = Table(lanes_BT, order, skip)
    table.learn(1, 61)
    check_against_dictionaries(table, table.lanes_BT)


def test_a_context_with_many_followers_is_counted_through_all_its_blocks() -> None:
    lanes_BT = np.random.default_rng(0).integers(1, 80, (2, 300))
    table = Table(lanes_BT, 2)
    table.learn(1, 301)
    assert table.cells[table.path(0, 300)[0] + KINDS] == 79
    check_against_dictionaries(table, table.lanes_BT)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 8), st.data())
def test_what_is_taken_back_was_never_there(
    text: list[int], order: int, data: st.DataObject
) -> None:
    lanes_BT = np.array([text])
    table = Table(lanes_BT, order)
    cut = data.draw(st.integers(1, len(text) + 1))
    table.learn(1, cut)
    table.undo[0, 0] = 0
    before = table.contexts()
    table.learn(cut, len(text) + 1)
    trie.undo_(table.cells, table.undo)
    assert np.array_equal(table.contexts(), before)
    check_against_dictionaries(table, table.lanes_BT[:, :cut])
    table.learn(cut, len(text) + 1)
    check_against_dictionaries(table, table.lanes_BT)


def test_the_order_of_the_lanes_does_not_matter() -> None:
    lanes_BT = lanes_of(0, 3, 50, 4)
    one, other = Table(lanes_BT, 6), Table(lanes_BT[::-1], 6)
    one.learn(1, 51)
    other.learn(1, 51)
    assert one.cells[COUNT] == other.cells[COUNT]
    for t in range(1, 52):
        paths = one.path(0, t), other.path(2, t)
        assert len(paths[0]) == len(paths[1])
        for first, second in zip(*paths, strict=True):
            assert one.followers(first) == other.followers(second)


def test_a_full_table_forgets_the_older_half_and_counts_the_newer_exactly() -> None:
    lanes_BT = lanes_of(1, 2, 200, 6)
    table = Table(lanes_BT, 5, cells=1 << 15)
    table.learn(1, 201)
    left = trie.forget_(
        table.cells,
        table.undo,
        table.history,
        table.lanes_BT.size,
        2,
        BOS,
        np.array([5]),
        np.array([0]),
    )
    kept_BT = table.lanes_BT[:, -(left // 2) :]
    assert left // 2 == 100
    assert np.array_equal(table.history[:left].reshape(-1, 2).T, kept_BT)
    check_against_dictionaries(table, kept_BT)
