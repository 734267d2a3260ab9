"""Batches of training rows from a shuffled token stream, made ahead of time by a thread.

The stream is a ring: every document is followed by a BOS, the last one by the first one's. With
N positions and rows of T targets, an epoch cuts the ring into ceil(N / T) rows, the last one short
(padded with `IGNORED`), starting at a random phase, and visits the rows in random order:

    ring position        p  p+1 ..... p+T  ...            every position is a target of exactly
    inputs of row 0      [p ... p+T-1]                    one row, with the position before it as
    targets of row 0        [p+1 ... p+T]                 input; phase and order are new each epoch

Rows follow each other across epochs, so a batch may hold the end of one and the start of the next.
Shape legend: B rows of this rank, T positions.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError, RecipeError
from parbyte.text.shards import TokenStream

IGNORED = -100
"""The target of a padded position: counts in no loss."""

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]
Order = Literal["blocks", "documents"]

_BATCHES_AHEAD = 4
_BLOCK_TOKENS = 1 << 20


class TrainBatches:
    """Endless batches of one rank; the global batches do not depend on the number of ranks.

    batch_tokens: of the global batch, a multiple of seq_len * world_size.
    order: "blocks" shuffles stretches of the stream, which stays in its order inside a row and
    across documents; "documents" also shuffles the documents before they are packed end to end.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        bos_id: int,
        batch_tokens: int,
        seq_len: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        order: Order = "blocks",
    ) -> None:
        num_rows, rest = divmod(batch_tokens, seq_len * world_size)
        if rest or num_rows == 0:
            raise RecipeError(
                f"'train.batch_tokens' is {batch_tokens:,}, must be a multiple of train.seq_len "
                f"x ranks = {seq_len:,} x {world_size:,} = {seq_len * world_size:,}"
            )
        if len(stream) == 0:
            raise DataError("there is nothing to train on: the training split has no tokens")
        self._rows = _Rows(stream, bos_id, seq_len, seed, order)
        self._global_rows = num_rows * world_size
        self._local_rows = range(rank * num_rows, (rank + 1) * num_rows)
        self._row = 0
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: deque[Future[Batch]] = deque()

    @property
    def epoch(self) -> int:
        """How many times the whole stream has been visited."""
        return self._row // self._rows.per_epoch

    @property
    def epoch_fraction(self) -> float:
        """How much of the current epoch has been visited, 0 to 1."""
        return self._row % self._rows.per_epoch / self._rows.per_epoch

    def next(self) -> Batch:
        """Return the next batch's inputs and targets, int64[B, T] each."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "batches")
        while len(self._ahead) < _BATCHES_AHEAD:
            start = self._row + len(self._ahead) * self._global_rows
            self._ahead.append(self._thread.submit(self._make, start))
        batch = self._ahead[0].result()
        self._ahead.popleft()
        self._row += self._global_rows
        return batch

    def state(self) -> dict[str, int]:
        """Return what `restore` needs so that the next batch is the one that would come now."""
        return {"row": self._row}

    def restore(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken, with the same stream and settings."""
        self.close()
        self._row = state["row"]

    def close(self) -> None:
        """Stop the thread that works ahead; a later `next` starts another."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
            self._ahead.clear()

    def _make(self, start: int) -> Batch:
        pairs = [self._rows.row(start + index) for index in self._local_rows]
        inputs_BT = np.stack([inputs for inputs, _ in pairs])
        targets_BT = np.stack([targets for _, targets in pairs])
        return inputs_BT, targets_BT


class _Rows:
    """The endless sequence of rows, each computed from its number alone."""

    def __init__(
        self, stream: TokenStream, bos_id: int, seq_len: int, seed: int, order: Order
    ) -> None:
        self.per_epoch = -(-len(stream) // seq_len)
        self._stream = stream
        self._bos_id = bos_id
        self._seq_len = seq_len
        self._seed = seed
        self._starts = document_starts(stream, bos_id) if order == "documents" else None
        self._epoch = -1

    def row(self, number: int) -> Batch:
        """Return inputs and targets of one row, int64[T] each."""
        epoch, index = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._begin_epoch(epoch)
        start = int(self._permutation[index]) * self._seq_len
        length = min(self._seq_len, len(self._stream) - start)
        tokens = self._ring(self._phase + start, length + 1)
        inputs = np.full(self._seq_len, self._bos_id, np.int64)
        targets = np.full(self._seq_len, IGNORED, np.int64)
        inputs[:length] = tokens[:-1]
        targets[:length] = tokens[1:]
        return inputs, targets

    def _begin_epoch(self, epoch: int) -> None:
        generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        self._epoch = epoch
        self._phase = int(generator.integers(len(self._stream)))
        self._permutation = generator.permutation(self.per_epoch)
        self._shuffled = (
            None
            if self._starts is None
            else _ShuffledDocuments(self._stream, self._starts, generator)
        )

    def _ring(self, start: int, length: int) -> NDArray[np.uint16]:
        source = self._stream if self._shuffled is None else self._shuffled
        size = len(self._stream)
        start %= size
        head = source[start : min(start + length, size)]
        if len(head) == length:
            return head
        # A row holds at most all N positions and the one before them: it wraps at most once.
        return np.concatenate([head, source[0 : length - len(head)]])


class _ShuffledDocuments:
    """A stream whose documents stand in a random order."""

    def __init__(
        self, stream: TokenStream, starts: NDArray[np.int64], generator: np.random.Generator
    ) -> None:
        order = generator.permutation(len(starts))
        self._stream = stream
        self._starts = starts[order]
        self._ends = np.cumsum(np.diff(starts, append=len(stream))[order])

    def __getitem__(self, span: slice) -> NDArray[np.uint16]:
        pieces: list[NDArray[np.uint16]] = [np.empty(0, np.uint16)]
        position = span.start
        document = int(np.searchsorted(self._ends, position, side="right"))
        while position < span.stop:
            stop = min(span.stop, int(self._ends[document]))
            begin = int(self._starts[document])
            before = int(self._ends[document - 1]) if document else 0
            pieces.append(self._stream[begin + position - before : begin + stop - before])
            position = stop
            document += 1
        return np.concatenate(pieces)


def document_starts(stream: TokenStream, bos_id: int) -> NDArray[np.int64]:
    """Return the position of every BOS, int64[num_documents]; DataError if the first is not 0."""
    found = [
        np.flatnonzero(block == bos_id) + index * _BLOCK_TOKENS
        for index, block in enumerate(stream.blocks(_BLOCK_TOKENS))
    ]
    starts = np.concatenate(found)
    if len(starts) == 0 or starts[0] != 0:
        raise DataError(f"the training split does not start with BOS ({bos_id})")
    return starts
