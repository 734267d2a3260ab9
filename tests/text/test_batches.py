"""Every position is a target once per epoch, whatever the sizes, ranks and interruptions."""

import gc
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from parbyte.base.errors import DataError, RecipeError
from parbyte.text.batches import IGNORED, Order, TrainBatches, document_starts
from parbyte.text.shards import TokenStream

BOS = 0
orders = st.sampled_from(["blocks", "documents"])


def numbered_stream(lengths: list[int]) -> TokenStream:
    """Make documents (BOS + ids) whose ids are all different, so that a token names its place."""
    ends = np.cumsum(lengths)
    documents = [
        np.concatenate([[BOS], np.arange(end - length + 1, end + 1)]).astype(np.uint16)
        for length, end in zip(lengths, ends, strict=True)
    ]
    return TokenStream(documents)


def make(
    stream: TokenStream, seq_len: int, rows: int = 1, seed: int = 1, order: Order = "blocks"
) -> TrainBatches:
    return TrainBatches(
        stream, bos_id=BOS, batch_tokens=rows * seq_len, seq_len=seq_len, seed=seed, order=order
    )


def take(batches: TrainBatches, count: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    found = [batches.next() for _ in range(count)]
    batches.close()
    return found


def rows_of(stream: TokenStream, seq_len: int, num_epochs: int, **settings):
    per_epoch = -(-len(stream) // seq_len)
    pairs = take(make(stream, seq_len, **settings), num_epochs * per_epoch)
    rows = [(inputs[0], outputs[0]) for inputs, outputs in pairs]
    return [rows[start : start + per_epoch] for start in range(0, len(rows), per_epoch)]


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    seq_len=st.integers(1, 40),
    order=orders,
    seed=st.integers(0, 2**40),
)
def test_every_position_is_a_target_once_per_epoch(
    lengths: list[int], seq_len: int, order: Order, seed: int
) -> None:
    stream = numbered_stream(lengths)
    for rows in rows_of(stream, seq_len, num_epochs=3, seed=seed, order=order):
        seen = np.concatenate([outputs[outputs != IGNORED] for _, outputs in rows])
        assert sorted(seen.tolist()) == sorted(stream[:].tolist())


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    seq_len=st.integers(1, 40),
    order=orders,
)
def test_each_input_is_the_token_before_its_target(
    lengths: list[int], seq_len: int, order: Order
) -> None:
    stream = numbered_stream(lengths)
    ring = stream[:].tolist()
    follows = set(pairwise([*ring, ring[0]]))
    # Between documents any last token may come before the BOS of any other.
    lasts = {before for before, after in follows if after == BOS}
    for inputs, outputs in rows_of(stream, seq_len, num_epochs=1, order=order)[0]:
        length = int((outputs != IGNORED).sum())
        assert (outputs[length:] == IGNORED).all()
        assert (inputs[length:] == BOS).all()
        assert inputs[1:length].tolist() == outputs[: length - 1].tolist()
        for before, after in zip(inputs[:length].tolist(), outputs[:length].tolist(), strict=True):
            assert before in lasts if after == BOS else (before, after) in follows


def test_blocks_keep_the_order_of_the_stream() -> None:
    ring = numbered_stream([5, 0, 9, 3])[:].tolist() * 2
    for inputs, outputs in rows_of(numbered_stream([5, 0, 9, 3]), 6, num_epochs=1)[0]:
        row = [int(inputs[0]), *outputs[outputs != IGNORED].tolist()]
        assert any(ring[at : at + len(row)] == row for at in range(len(ring)))


def test_documents_are_packed_end_to_end_in_an_order_that_changes_every_epoch() -> None:
    stream = numbered_stream([3] * 30)
    orders_seen = []
    for rows in rows_of(stream, 1000, num_epochs=3, order="documents"):
        outputs = rows[0][1]
        ring = outputs[outputs != IGNORED]
        ring = np.roll(ring, -int(np.flatnonzero(ring == BOS)[0]))
        assert (ring.reshape(-1, 4)[:, 0] == BOS).all()
        orders_seen.append(ring.reshape(-1, 4)[:, 1].tolist())
    stream_order = [1 + 3 * index for index in range(30)]
    assert all(sorted(order) == stream_order for order in orders_seen)
    # A ring may start anywhere, so compare who comes after whom.
    successors = [set(pairwise(order)) for order in [*orders_seen, stream_order]]
    assert all(len(a & b) < 10 for a, b in pairwise(successors))


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    seq_len=st.integers(1, 9),
    rows=st.sampled_from([4, 8, 12]),
    world_size=st.sampled_from([1, 2, 4]),
)
def test_ranks_share_the_same_global_batches(
    lengths: list[int], seq_len: int, rows: int, world_size: int
) -> None:
    stream = numbered_stream(lengths)
    whole = take(make(stream, seq_len, rows), 4)
    parts = [
        take(
            TrainBatches(
                stream,
                bos_id=BOS,
                batch_tokens=rows * seq_len,
                seq_len=seq_len,
                seed=1,
                rank=rank,
                world_size=world_size,
            ),
            4,
        )
        for rank in range(world_size)
    ]
    for index, (inputs, outputs) in enumerate(whole):
        assert inputs.dtype == outputs.dtype == np.int64
        assert inputs.shape == (rows, seq_len)
        assert np.array_equal(np.concatenate([part[index][0] for part in parts]), inputs)
        assert np.array_equal(np.concatenate([part[index][1] for part in parts]), outputs)


@given(stop=st.integers(0, 12), order=orders)
def test_a_restored_loader_goes_on_with_the_same_batches(stop: int, order: Order) -> None:
    stream = numbered_stream([5, 8, 2, 9])
    whole = take(make(stream, 4, 3, order=order), 14)
    first = make(stream, 4, 3, order=order)
    for _ in range(stop):
        first.next()
    state = first.state()
    second = make(stream, 4, 3, order=order)
    second.next()
    second.restore(state)
    assert (second.epoch, second.epoch_fraction) == (first.epoch, first.epoch_fraction)
    for loader in (first, second):
        rest = take(loader, 14 - stop)
        for (inputs, outputs), (expected_inputs, expected_outputs) in zip(
            rest, whole[stop:], strict=True
        ):
            assert np.array_equal(inputs, expected_inputs)
            assert np.array_equal(outputs, expected_outputs)


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    stream = numbered_stream([50] * 8)

    def first_tokens(seed: int) -> list[list[int]]:
        epochs = rows_of(stream, 10, num_epochs=2, seed=seed)
        return [[int(inputs[0]) for inputs, _ in rows] for rows in epochs]

    assert first_tokens(3) == first_tokens(3)
    assert first_tokens(3)[0] != first_tokens(3)[1]
    assert first_tokens(3)[0] != first_tokens(4)[0]


def test_epoch_and_fraction_follow_what_was_handed_out_not_what_was_made_ahead() -> None:
    batches = make(numbered_stream([39]), seq_len=10)
    seen = []
    for _ in range(9):
        seen.append((batches.epoch, batches.epoch_fraction))
        batches.next()
    batches.close()
    assert seen[:6] == [(0, 0.0), (0, 0.25), (0, 0.5), (0, 0.75), (1, 0.0), (1, 0.25)]
    assert seen[8] == (2, 0.0)


@pytest.mark.parametrize(("batch_tokens", "world_size"), [(10, 1), (12, 2), (0, 1), (4, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch_tokens: int, world_size: int) -> None:
    with pytest.raises(RecipeError, match=r"'train\.batch_tokens' is .*, must be a multiple of"):
        TrainBatches(
            numbered_stream([9]),
            bos_id=BOS,
            batch_tokens=batch_tokens,
            seq_len=4,
            seed=0,
            world_size=world_size,
        )


def test_a_stream_without_tokens_or_bos_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        make(TokenStream([]), 4)
    with pytest.raises(DataError, match="does not start with BOS"):
        make(TokenStream([np.array([3, 0], np.uint16)]), 4, order="documents")


def test_document_starts_are_the_positions_of_bos() -> None:
    assert document_starts(numbered_stream([2, 0, 1]), BOS).tolist() == [0, 3, 4]


def test_the_thread_ends_with_close_and_with_a_forgotten_loader() -> None:
    def num_threads() -> int:
        return sum(thread.name.startswith("batches") for thread in threading.enumerate())

    before = num_threads()
    batches = make(numbered_stream([50]), seq_len=5)
    batches.next()
    assert num_threads() == before + 1
    batches.close()
    batches.close()
    assert num_threads() == before
    batches.next()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    del batches
    gc.collect()
    for worker in workers:
        worker.join(timeout=10)
    assert num_threads() == before


def test_an_error_in_the_thread_reaches_the_caller_every_time() -> None:
    class Broken(TokenStream):
        def __getitem__(self, span: slice) -> NDArray[np.uint16]:
            raise DataError("the disk is gone")

    batches = make(Broken([np.zeros(9, np.uint16)]), seq_len=3)
    for _ in range(3):
        with pytest.raises(DataError, match="the disk is gone"):
            batches.next()
    batches.close()
