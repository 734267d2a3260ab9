"""A file is either whole or absent, whatever happens while it is written."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError, ResourceError
from parbyte.base.files import (
    atomic_file,
    read_json,
    resource_error,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)


def test_a_written_file_holds_the_bytes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep" / "folder" / "a.bin", b"\x00\xff text")
    assert (tmp_path / "deep" / "folder" / "a.bin").read_bytes() == b"\x00\xff text"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.bin") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as stream:
        stream.write(b"new, but interrupted")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_file(path) as stream:
        stream.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_a_finished_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes[0] == modes[1]


def test_text_mode_writes_text(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.txt", "w") as stream:
        stream.write("line\n")
    assert (tmp_path / "a.txt").read_text() == "line\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResourceError, match=r"cannot write .*No space left.*free some space"):
        write_bytes(tmp_path / "a.bin", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="it is a folder"), atomic_file(tmp_path):
        pytest.fail("the work was begun")


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="a file stands where a folder is needed"):
        write_bytes(tmp_path / "file" / "a.bin", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="choose a folder that you may write"):
        write_bytes(tmp_path / "a.bin", b"x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, 0])
def test_every_refusal_names_the_path_and_a_remedy(number: int) -> None:
    text = str(resource_error(OSError(number, "refused"), Path("runs/a")))
    assert "'runs/a'" in text and "refused" in text and "; " in text and "\n" not in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_what_is_no_json_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json.*is no JSON"):
        read_json(path)


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*a\.json': No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"cannot read '.*a\.bin': No such file"):
        sha256_file(tmp_path / "a.bin")


@given(st.binary(max_size=1000))
def test_a_files_hash_is_the_hash_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "data.bin"
    path.write_bytes(data)
    assert sha256_file(path) == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["z", "a"]
