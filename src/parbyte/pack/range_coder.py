"""Entropy-code a table of small symbols with an adaptive range coder.

The table is coded in blocks of rows. Columns fall into classes by how far their symbols have
strayed so far (a column of large weights stays one), each class has its own counts, and both are
updated after every block; so neither counts nor classes are stored. All arithmetic is on integers
until the coder's own: the same bytes on every machine.

payload = lowest symbol, centre, number of symbols - 1, log2 of classes (1 byte each), coded words
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]

_HEADER_BYTES = 4
_LONGEST_BLOCK = 2048  # symbols; longer blocks adapt too late, shorter ones cost time
_SETTLED = 64  # blocks may be longer where they are a smaller share of what was seen than that
_MOST_CLASS_BITS = 4
_WEIGHT = 16  # what a seen symbol counts against the prior 1 of an unseen one
_MOST_COUNT = 2**20  # far below 2^24, where float32 counts stop being exact
_STREAM: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def encode_table(table_RC: Symbols, class_bits: int) -> bytes:
    """Code a uint8[R, C] table that has at least one symbol, with 2^class_bits column classes."""
    low, high = int(table_RC.min()), int(table_RC.max())
    centre = int(np.median(table_RC))
    header = bytes([low, centre, high - low, class_bits])
    num_rows, num_columns = table_RC.shape
    tally = _Tally.start(num_columns, high - low + 1, centre - low, class_bits)
    encoder = _STREAM.queue.RangeEncoder()
    for start, stop in _blocks(num_rows, num_columns):
        block_RC = (table_RC[start:stop] - low).astype(np.int32)
        for index, columns in enumerate(tally.columns_by_class()):
            encoder.encode(block_RC[:, columns].ravel(), tally.model(index))
        tally.learn_(block_RC)
    words = encoder.get_compressed().astype("<u4")
    return header + words.tobytes().rstrip(b"\0")


def decode_table(payload: bytes, num_rows: int, num_columns: int) -> Symbols:
    """Restore the uint8[R, C] table; ValueError if the payload is no such table."""
    if len(payload) < _HEADER_BYTES:
        raise ValueError("shorter than its own header")
    low, centre, span, class_bits = payload[:_HEADER_BYTES]
    if low + span > 255 or not low <= centre <= low + span or class_bits > _MOST_CLASS_BITS:
        raise ValueError("impossible symbol range or number of classes")
    tally = _Tally.start(num_columns, span + 1, centre - low, class_bits)
    words = payload[_HEADER_BYTES:] + b"\0" * (-(len(payload) - _HEADER_BYTES) % 4)
    decoder = _STREAM.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))
    table_RC = np.empty((num_rows, num_columns), np.uint8)
    for start, stop in _blocks(num_rows, num_columns):
        block_RC = np.empty((stop - start, num_columns), np.int32)
        for index, columns in enumerate(tally.columns_by_class()):
            block_RC[:, columns] = _decode(decoder, tally.model(index), stop - start, len(columns))
        tally.learn_(block_RC)
        table_RC[start:stop] = block_RC + low
    return table_RC


def class_bits_to_try(num_columns: int) -> range:
    """Return the numbers of class bits that can help a table of this width."""
    return range(min(_MOST_CLASS_BITS, num_columns.bit_length() - 1) + 1)


@dataclass
class _Tally:
    """What both directions know so far: counts by class, straying by column."""

    counts_KS: NDArray[np.int64]
    straying_C: NDArray[np.int64]
    class_C: NDArray[np.int64]
    centre: int

    @staticmethod
    def start(num_columns: int, num_symbols: int, centre: int, class_bits: int) -> "_Tally":
        return _Tally(
            counts_KS=np.ones((2**class_bits, num_symbols), np.int64),
            straying_C=np.zeros(num_columns, np.int64),
            class_C=np.arange(num_columns) * 2**class_bits // max(num_columns, 1),
            centre=centre,
        )

    def columns_by_class(self) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(self.class_C == k) for k in range(len(self.counts_KS))]

    def model(self, index: int) -> Any:
        counts_S = self.counts_KS[index]
        if len(counts_S) == 1:  # a categorical model needs two symbols
            counts_S = np.array([_MOST_COUNT, 1])
        return _STREAM.model.Categorical(counts_S.astype(np.float32), perfect=False)

    def learn_(self, block_RC: NDArray[np.int32]) -> None:
        num_classes, num_symbols = self.counts_KS.shape
        cell_RC = self.class_C * num_symbols + block_RC
        seen = np.bincount(cell_RC.ravel(), minlength=self.counts_KS.size)
        self.counts_KS += _WEIGHT * seen.reshape(self.counts_KS.shape)
        too_many_K = self.counts_KS.max(1) > _MOST_COUNT
        self.counts_KS[too_many_K] = (self.counts_KS[too_many_K] + 1) // 2
        self.straying_C += np.abs(block_RC - self.centre).sum(0)
        rank_C = np.empty_like(self.class_C)
        rank_C[np.argsort(self.straying_C, kind="stable")] = np.arange(len(rank_C))
        self.class_C = rank_C * num_classes // len(rank_C)


def _blocks(num_rows: int, num_columns: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) rows; early blocks are short because much is learned from them."""
    start = 0
    while start < num_rows:
        longest = max(1, _LONGEST_BLOCK // num_columns, start // _SETTLED)
        stop = min(num_rows, start + min(longest, 1 + start // 4))
        yield start, stop
        start = stop


def _decode(
    decoder: Any,
    model: Any,
    num_rows: int,
    num_columns: int,
) -> NDArray[np.int32]:
    try:
        symbols = decoder.decode(model, num_rows * num_columns)
    except AssertionError:  # how constriction says that no encoder wrote these words
        raise ValueError("words that no encoder wrote") from None
    return symbols.reshape(num_rows, num_columns)
