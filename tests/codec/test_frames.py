"""Frames cut a text without losing a byte of it, and decode to what was coded."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError
from parbyte.codec.frames import document_frames, file_frames


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 100))
def test_document_frames_hold_whole_documents(documents: list[bytes], frame_bytes: int) -> None:
    frames = list(document_frames(documents, frame_bytes))
    assert [document for frame in frames for document in frame] == documents
    assert all(sum(map(len, frame)) <= frame_bytes or len(frame) == 1 for frame in frames)


@given(text=st.binary(max_size=300), frame_bytes=st.integers(1, 100))
def test_file_frames_are_short_and_complete(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, frame_bytes: int
) -> None:
    source = tmp_path_factory.mktemp("frames") / "text"
    source.write_bytes(text)
    frames = list(file_frames(source, frame_bytes))
    assert b"".join(document for frame in frames for document in frame) == text
    assert all(0 < len(frame[0]) <= frame_bytes for frame in frames)


def test_a_file_is_cut_behind_a_newline(tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_bytes(b"one two\nthree four\nfive")
    assert list(file_frames(source, 12)) == [[b"one two\n"], [b"three four\n"], [b"five"]]


def test_an_empty_file_has_no_frames(tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.touch()
    assert list(file_frames(source, 12)) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        list(file_frames(tmp_path / "nowhere", 12))
