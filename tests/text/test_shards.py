"""Shards restore what was written, in the contest's bytes, and refuse anything else."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError, ResourceError
from parbyte.text.shards import (
    HEADER_BYTES,
    MAGIC,
    ShardWriter,
    TokenStream,
    count_tokens,
    cut_documents,
    open_shards,
    read_count,
)

BOS = 0
token_lists = st.lists(st.integers(0, 65_535), max_size=40)


def write(folder: Path, pieces: list[list[int]], shard_tokens: int = 10**6) -> list[Path]:
    with ShardWriter(folder, "train", shard_tokens) as writer:
        for piece in pieces:
            writer.append(np.array(piece, np.uint16))
    assert writer.num_tokens == sum(map(len, pieces))
    return writer.paths


@given(pieces=st.lists(token_lists, min_size=1), shard_tokens=st.integers(1, 50))
def test_what_is_written_is_read_back_across_shards(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[list[int]], shard_tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    paths = write(folder, pieces, shard_tokens)
    tokens = [token for piece in pieces for token in piece]
    assert [read_count(path) for path in paths[:-1]] == [shard_tokens] * (len(paths) - 1)
    if not tokens:
        assert paths == []
        return
    stream = open_shards(folder, "train")
    assert len(stream) == len(tokens)
    assert stream[:].tolist() == tokens
    assert [token for block in stream.blocks(7) for token in block.tolist()] == tokens
    assert sorted(os.listdir(folder)) == [path.name for path in paths]


@given(
    tokens=token_lists,
    cuts=st.lists(st.integers(0, 40)),
    start=st.integers(-50, 50),
    stop=st.integers(-50, 50),
)
def test_slices_equal_those_of_the_joined_array(
    tokens: list[int], cuts: list[int], start: int, stop: int
) -> None:
    whole = np.array(tokens, np.uint16)
    stream = TokenStream(np.split(whole, sorted(min(cut, len(whole)) for cut in cuts)))
    assert stream[start:stop].tolist() == whole[start:stop].tolist()
    assert stream[start:].tolist() == whole[start:].tolist()


def test_a_shard_is_the_contest_s_bytes(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [[1, 65_535]])
    data = path.read_bytes()
    assert path.name == "train_000000.bin"
    header = np.frombuffer(data[:HEADER_BYTES], "<i4")
    assert header[:3].tolist() == [20240520, 1, 2]
    assert not header[3:].any()
    assert data[HEADER_BYTES:] == b"\x01\x00\xff\xff"


def _patch(offset: int, value: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return data[:offset] + value.to_bytes(4, "little", signed=True) + data[offset + 4 :]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_patch(0, MAGIC + 1), "magic number 20240521, must be 20240520"),
        (_patch(4, 2), "version 2, must be 1"),
        (_patch(8, 4), "its header promises 4 tokens = 1,032 bytes"),
        (_patch(8, -1), "damaged"),
        (lambda data: data[:-1], "1,029 bytes, but its header promises 3 tokens"),
        (lambda data: data + b"\0", "damaged"),
        (lambda data: data[:100], "100 bytes, a header alone has 1024"),
        (lambda data: b"", "0 bytes"),
    ],
)
def test_a_damaged_shard_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    (path,) = write(tmp_path, [[1, 2, 3]])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path, "train")


def test_a_split_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no 'dev_\*\.bin' shards"):
        open_shards(tmp_path, "dev")


def test_an_interrupted_writer_leaves_no_part_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "train", 3) as writer:
        writer.append(np.arange(4, dtype=np.uint16))
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["train_000000.bin"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="choose another path"):
        write(tmp_path / "file", [[1]])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".train_000000.bin.part").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="free some space"):
        write(tmp_path, [list(range(1000))] * 2000)
    assert os.listdir(tmp_path) == []


@given(
    documents=st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=8),
    block_tokens=st.integers(1, 9),
)
def test_documents_are_cut_at_every_bos(documents: list[list[int]], block_tokens: int) -> None:
    stream = TokenStream([np.array([BOS, *ids], np.uint16) for ids in documents])
    assert [ids.tolist() for ids in cut_documents(stream, BOS, block_tokens)] == documents


def test_a_stream_that_starts_inside_a_document_is_refused() -> None:
    with pytest.raises(DataError, match=r"the first token is 5, must be BOS \(0\)"):
        list(cut_documents(TokenStream([np.array([5, 0], np.uint16)]), BOS))


def test_counts_of_tokens_are_those_of_the_whole_split(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 50, 1000).astype(np.uint16)
    write(tmp_path, [ids.tolist()], shard_tokens=300)
    counts = count_tokens(tmp_path, "train", 60)
    assert counts.tolist() == [int((ids == token).sum()) for token in range(60)]
