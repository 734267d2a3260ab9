"""Token shards: files of uint16 ids in the contest's format, written once, memory-mapped to read.

A shard is a header of 256 little-endian int32 (magic, version, count, zeros) and `count`
little-endian uint16 ids; its size is exactly 1,024 + 2 * count bytes. A split is all shards
`<split>_%06d.bin` of a folder, in the order of their names; documents may straddle shards.
Source: data format of github.com/openai/parameter-golf (data/README, train_gpt.py).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError
from parbyte.base.files import resource_error

HEADER_BYTES = 1024
MAGIC = 20240520
VERSION = 1

_BLOCK_TOKENS = 1 << 20
_BUFFER_BYTES = 1 << 20


class TokenStream:
    """The ids of a split in order, across its shards, read from disk as they are asked for."""

    def __init__(self, shards: Sequence[NDArray[np.uint16]]) -> None:
        self._shards = list(shards)
        lengths = [len(shard) for shard in self._shards]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._shards else 0

    def __getitem__(self, span: slice) -> NDArray[np.uint16]:
        """Copy the ids of a contiguous slice into memory: uint16[stop - start]."""
        start, stop, stride = span.indices(len(self))
        assert stride == 1, "a token stream is read in contiguous slices"
        ids = np.empty(max(stop - start, 0), np.uint16)
        done = 0
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while done < len(ids):
            tokens = self._shards[shard]
            begin = start + done - (int(self._ends[shard]) - len(tokens))
            piece = tokens[begin : begin + len(ids) - done]
            ids[done : done + len(piece)] = piece
            done += len(piece)
            shard += 1
        return ids

    def blocks(self, block_tokens: int = _BLOCK_TOKENS) -> Iterator[NDArray[np.uint16]]:
        """Yield the whole stream as consecutive arrays of at most `block_tokens` ids."""
        for start in range(0, len(self), block_tokens):
            yield self[start : start + block_tokens]


def shard_name(split: str, index: int) -> str:
    """Return the file name of a split's shard."""
    return f"{split}_{index:06d}.bin"


def open_shards(folder: Path, split: str) -> TokenStream:
    """Map all shards `<split>_*.bin` of a folder.

    Raises DataError if there is none or if one of them is not a whole shard.
    """
    paths = sorted(folder.glob(f"{split}_[0-9]*.bin"))
    if not paths:
        raise DataError(f"'{folder}' holds no '{split}_*.bin' shards; prepare the data first")
    return TokenStream([map_shard(path) for path in paths])


def count_tokens(folder: Path, split: str, vocab_size: int) -> NDArray[np.int64]:
    """Return how often each id occurs in a split, int64[vocab_size], BOS included."""
    counts = np.zeros(vocab_size, np.int64)
    for block in open_shards(folder, split).blocks(_BLOCK_TOKENS):
        counts += np.bincount(block, minlength=vocab_size)
    return counts


def cut_documents(
    stream: TokenStream, bos_id: int, block_tokens: int = _BLOCK_TOKENS
) -> Iterator[NDArray[np.uint16]]:
    """Yield the ids of each document of a stream, without its BOS.

    Raises DataError if the stream does not start with a BOS.
    """
    if len(stream) and int(stream[:1][0]) != bos_id:
        raise DataError(f"the first token is {int(stream[:1][0])}, must be BOS ({bos_id})")
    held: list[NDArray[np.uint16]] = []
    has_begun = False
    for block in stream.blocks(block_tokens):
        tail, *begun = np.split(block, np.flatnonzero(block == bos_id))
        held.append(tail)
        for document in begun:
            if has_begun:
                yield np.concatenate(held)
            held, has_begun = [document[1:]], True
    if has_begun:
        yield np.concatenate(held)


def map_shard(path: Path) -> NDArray[np.uint16]:
    """Map one shard's ids, read-only; DataError unless header and size agree."""
    count = read_count(path)
    if count == 0:
        return np.empty(0, np.uint16)
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))


def read_count(path: Path) -> int:
    """Return the number of ids in a shard; DataError unless magic, version and size are right."""
    try:
        with path.open("rb") as stream:
            header = stream.read(HEADER_BYTES)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None
    if len(header) < HEADER_BYTES:
        raise DataError(f"'{path}' is no shard: {size:,} bytes, a header alone has {HEADER_BYTES}")
    magic, version, count = (int(value) for value in np.frombuffer(header, "<i4", count=3))
    if magic != MAGIC:
        raise DataError(f"'{path}' is no shard: magic number {magic}, must be {MAGIC}")
    if version != VERSION:
        raise DataError(f"'{path}' is a shard of version {version}, must be {VERSION}")
    if count < 0 or size != HEADER_BYTES + 2 * count:
        raise DataError(
            f"'{path}' is damaged: {size:,} bytes, but its header promises {count:,} tokens "
            f"= {HEADER_BYTES + 2 * count:,} bytes; make or fetch it again"
        )
    return count


@dataclass
class _OpenShard:
    path: Path
    part: Path
    stream: BinaryIO
    count: int = 0


class ShardWriter:
    """Stream ids into `<folder>/<split>_%06d.bin`; a shard appears only when it is whole.

    Use it in a `with` block: leaving it finishes the last shard, an exception drops that shard.
    first: the number of the first shard.
    """

    def __init__(self, folder: Path, split: str, shard_tokens: int, *, first: int = 0) -> None:
        self.paths: list[Path] = []
        self.num_tokens = 0
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._first = first
        self._shard: _OpenShard | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._shard is not None:
            self._drop(self._shard)

    def append(self, ids: NDArray[np.uint16]) -> None:
        """Add ids to the stream; ResourceError if the folder or the disk refuses."""
        done = 0
        while done < len(ids):
            shard = self._shard or self._begin()
            piece = ids[done : done + self._shard_tokens - shard.count]
            self._write(shard, piece.astype("<u2", copy=False).tobytes())
            shard.count += len(piece)
            done += len(piece)
            if shard.count == self._shard_tokens:
                self.close()
        self.num_tokens += len(ids)

    def close(self) -> None:
        """Finish the shard that is open, if any."""
        shard = self._shard
        if shard is None:
            return
        header = np.zeros(HEADER_BYTES // 4, "<i4")
        header[:3] = (MAGIC, VERSION, shard.count)
        try:
            shard.stream.seek(0)
            shard.stream.write(header.tobytes())
            shard.stream.flush()
            os.fsync(shard.stream.fileno())
            shard.stream.close()
            os.replace(shard.part, shard.path)
        except OSError as error:
            self._drop(shard)
            raise resource_error(error, shard.path) from None
        self._shard = None
        self.paths.append(shard.path)

    def _begin(self) -> _OpenShard:
        path = self._folder / shard_name(self._split, self._first + len(self.paths))
        part = path.with_name(f".{path.name}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            stream = part.open("wb", buffering=_BUFFER_BYTES)
        except OSError as error:
            raise resource_error(error, path) from None
        self._shard = _OpenShard(path, part, stream)
        self._write(self._shard, bytes(HEADER_BYTES))
        return self._shard

    def _write(self, shard: _OpenShard, data: bytes) -> None:
        try:
            shard.stream.write(data)
        except OSError as error:
            self._drop(shard)
            raise resource_error(error, shard.path) from None

    def _drop(self, shard: _OpenShard) -> None:
        self._shard = None
        # Closing flushes; on a full disk that fails again, and the file goes anyway.
        with suppress(OSError):
            shard.stream.close()
        shard.part.unlink(missing_ok=True)
