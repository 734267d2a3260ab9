"""Counts learned by chunks are those of a dictionary, wherever a chunk ends and keys collide.

Shapes: B lanes, T positions.
"""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels.test_counts import context_before, occurrences

from parbyte.kernels import batch_counts, key_table
from parbyte.kernels.batch_counts import COUNT, KINDS, LENGTH, USED, Counts

BOS = 0
Ints = NDArray[np.int64]
Levels = dict[tuple[int, ...], dict[int, tuple[int, int]]]


def some_lanes(seed: int, lanes: int, length: int, vocab: int) -> Ints:
    """Return lanes that repeat themselves and each other, with documents' ends and padding."""
    rng = np.random.default_rng(seed)
    text = np.tile(rng.integers(1, vocab, 9), (lanes, length // 9 + 1))[:, :length]
    is_noise = rng.random(text.shape) < 0.2
    text[is_noise] = rng.integers(0, vocab, int(is_noise.sum()))
    text[-1, length - length // 6 :] = BOS
    return text


def counts_of(
    lanes_BT: Ints,
    order: int,
    vocab: int,
    chunk: int,
    slots: int = 1 << 14,
    pool: int = 1 << 14,
    history: int = 1 << 12,
) -> Counts:
    counts = batch_counts.new_counts(
        slots,
        pool,
        history,
        order=order,
        vocab_size=vocab,
        num_lanes=len(lanes_BT),
        bos_id=BOS,
    )
    for chunk_BT in torch.from_numpy(lanes_BT).split(chunk, dim=1):
        batch_counts.observe_(counts, chunk_BT, chunk)
    return counts


def wanted_levels(lanes_BT: Ints, order: int) -> Levels:
    """Return context -> follower -> (occurrences, contexts one token longer, at least 1)."""
    times: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    longer: dict[object, set[object]] = defaultdict(set)
    for k in range(order + 1):
        for context, token, oldest in occurrences(lanes_BT, k, 0):
            times[context][token] += 1
            if oldest is not None and k < order:
                longer[context, token].add(oldest)
    return {
        context: {v: (n, len(longer[context, v]) or 1) for v, n in found.items()}
        for context, found in times.items()
    }


def assert_levels_are_right(counts: Counts, lanes_BT: Ints, first_B1: Ints | None = None) -> None:
    """Compare what each place of the lanes, and the one behind, finds with the dictionary."""
    first_B1 = np.full((len(lanes_BT), 1), BOS) if first_B1 is None else first_B1
    before_BT = np.concatenate([first_B1, lanes_BT], axis=1)
    wanted = wanted_levels(before_BT, counts.order)
    lanes, length = before_BT.shape
    places_N = torch.arange(lanes, lanes * (length + 1))
    found: Levels = defaultdict(dict)
    for order, items_A, nodes_A in batch_counts.walk(counts, places_N):
        owners_M, tokens_M, counts_M = batch_counts.followers(counts, nodes_A, COUNT)
        kinds_M = batch_counts.followers(counts, nodes_A, KINDS)[2]
        facts_4M = torch.stack([items_A[owners_M], tokens_M, counts_M, kinds_M])
        for item, token, times, kinds in facts_4M.T.tolist():
            assert token not in found[item, order]
            found[item, order][token] = (times, kinds)
    for n in range(len(places_N)):
        lane_T, t = before_BT[n % lanes], n // lanes + 1
        for order in range(counts.order + 1):
            context = context_before(lane_T, t, order, 0)
            level = {} if context is None else wanted.get(context, {})
            assert found[n, order] == level, (n, order, context)


KEYS = st.lists(st.integers(0, 40), max_size=30)


@given(KEYS, KEYS)
def test_a_table_knows_what_was_written_and_nothing_else(first: list[int], more: list[int]) -> None:
    keys_S = torch.full((64,), key_table.NONE)
    for keys in (first, more):
        slots_N = key_table.insert_(keys_S, torch.tensor(keys, dtype=torch.int64))
        assert keys_S[slots_N].tolist() == keys
    found = key_table.find(keys_S, torch.arange(41)).tolist()
    known = sorted({*first, *more})
    assert [key for key, slot in enumerate(found) if slot != key_table.NONE] == known
    assert [int(keys_S[found[key]]) for key in known] == known


@given(
    st.integers(0, 1 << 30),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([2, 5, 7, 300]),
    st.integers(1, 22),
    st.integers(1, 16),
)
def test_counts_are_those_of_a_dictionary(
    seed: int, lanes: int, length: int, vocab: int, order: int, chunk: int
) -> None:
    lanes_BT = some_lanes(seed, lanes, length, vocab)
    assert_levels_are_right(counts_of(lanes_BT, order, vocab, chunk), lanes_BT)


def test_keys_of_one_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes_BT = some_lanes(1, 3, 20, 7)
    monkeypatch.setattr(key_table, "_MULTIPLIER", 0)
    keys_S = torch.full((16,), key_table.NONE)
    assert len(key_table.insert_(keys_S, torch.arange(15)).unique()) == 15
    assert_levels_are_right(counts_of(lanes_BT, 5, 7, 8), lanes_BT)


def test_a_table_may_be_full_but_for_one_slot() -> None:
    keys_S = torch.full((16,), key_table.NONE)
    keys_N = torch.arange(100, 115)
    slots_N = key_table.insert_(keys_S, keys_N)
    assert torch.equal(key_table.find(keys_S, keys_N), slots_N)
    assert key_table.find(keys_S, torch.arange(100)).unique().tolist() == [key_table.NONE]


@pytest.mark.parametrize(
    ("slots", "pool", "history"),
    [(1 << 9, 1 << 14, 1 << 12), (1 << 14, 600, 1 << 12), (1 << 14, 1 << 14, 180)],
)
def test_a_full_memory_forgets_the_older_half(slots: int, pool: int, history: int) -> None:
    lanes_BT, chunk, order = some_lanes(2, 2, 150, 50), 5, 6
    counts = counts_of(lanes_BT, order, 50, chunk, slots, pool, history)
    kept = int(counts.marks[LENGTH]) // 2
    assert 2 * chunk < kept < 120
    assert counts.marks[USED] == int((counts.keys_S != key_table.NONE).sum())
    text_BT = np.ascontiguousarray(counts.history_H[: 2 * kept].view(kept, 2).T.numpy())
    assert np.array_equal(text_BT, lanes_BT[:, -kept:])
    again = counts_of(lanes_BT, order, 50, chunk, slots, pool, history)
    assert torch.equal(again.keys_S, counts.keys_S)
    assert_levels_are_right(counts, text_BT[:, 1:], text_BT[:, :1])
