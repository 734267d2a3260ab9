"""Crafted archives: refused in one line, nothing written outside the folder, little memory."""

import io
import os
import stat
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.harness import watched

from parbyte.base.errors import BitstreamError, DataError, ParbyteError
from parbyte.base.log import Console
from parbyte.codec.archive import compress_entries
from parbyte.codec.bitstream import BitstreamWriter, Frame
from parbyte.codec.conditions import conditions
from parbyte.codec.config import CodecConfig
from parbyte.codec.pieces import Entry
from parbyte.codec.record import MAGIC, MODEL, ZSTD, Head, Slot, end_record, varint
from parbyte.codec.restore import compress_path, examine, restore
from parbyte.pack.artifact import Artifact

QUIET = Console(quiet=True)
CONFIG = CodecConfig(lanes=1, frame_bytes=1 << 12, threads=1)
UNSAFE = [b"../evil", b"/tmp/evil", b"a/../../evil", b".", b"..", b"a//b", b"a/", b"./a", b"a\0b"]
UNSAFE += [b"x" * 256, b"/", b"a/.."]


def crafted(artifact: Artifact, *entries: Entry) -> bytes:
    stream = io.BytesIO()
    compress_entries(artifact, CONFIG, entries, stream, QUIET)
    return stream.getvalue()


def sealed(head: Head, payload: bytes) -> bytes:
    """An archive of one frame whose checksums all fit, as an attacker would write it."""
    head = replace(head, payload_bytes=len(payload), payload_crc=zlib.crc32(payload))
    data = head.to_bytes()
    slot = Slot(
        offset=5,
        record_bytes=len(data) + len(payload),
        start=0,
        text_bytes=head.text_bytes,
        first_begun=0,
        documents=1,
        crc=data[-4:],
    )
    return MAGIC + data + payload + end_record([slot], head.text_bytes, 1)


def frame_head(kind: int, text_bytes: int, table: bytes = b"") -> Head:
    return Head(
        kind=kind,
        number=0,
        start=0,
        text_bytes=text_bytes,
        first=0,
        table=table,
        payload_bytes=0,
        payload_crc=0,
    )


def refused(artifact_path: Path, data: bytes, folder: Path) -> None:
    """Both ways of reading refuse it or report it, and leave nothing outside the folder."""
    (folder / "x.pby").write_bytes(data)
    before = sorted(folder.iterdir())
    with pytest.raises(ParbyteError) as caught:
        restore(artifact_path, folder / "x.pby", folder / "out", QUIET)
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before
    try:
        _, losses = examine(artifact_path, folder / "x.pby", QUIET)
        assert losses
    except ParbyteError:
        pass


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_leaves_the_folder_is_refused(
    artifact: Artifact, artifact_path: Path, tmp_path: Path, name: bytes
) -> None:
    data = crafted(artifact, Entry([b"good"], b"good", 0o644), Entry([b"evil"], name, 0o644))
    refused(artifact_path, data, tmp_path)
    with pytest.raises(BitstreamError, match="unsafe name"):
        restore(artifact_path, tmp_path / "x.pby", tmp_path / "out", QUIET, is_salvage=True)
    assert not Path("/tmp/evil").exists() and sorted(os.listdir(tmp_path)) == ["x.pby"]


@pytest.mark.parametrize(
    "names", [(b"a", b"a"), (b"a", b"a/b"), (b"a/b", b"a"), (b"a/b", b"a/b/c")]
)
def test_names_that_cannot_stand_together_are_refused(
    artifact: Artifact, artifact_path: Path, tmp_path: Path, names: tuple[bytes, bytes]
) -> None:
    data = crafted(artifact, *(Entry([b"text"], name, 0o644) for name in names))
    (tmp_path / "x.pby").write_bytes(data)
    with pytest.raises(BitstreamError, match=r"twice|a file and a folder"):
        restore(artifact_path, tmp_path / "x.pby", tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()


def test_no_existing_folder_or_link_is_written_through(
    artifact: Artifact, artifact_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.pby").write_bytes(crafted(artifact, Entry([b"new"], b"a/file", 0o644)))
    (tmp_path / "full" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for out in ("full", "link", "x.pby"):
        with pytest.raises(DataError, match="exists"):
            restore(artifact_path, tmp_path / "x.pby", tmp_path / out, QUIET)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_are_left_out_and_special_bits_are_dropped(
    artifact_path: Path, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"x")
    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "in" / "pipe")
    _, left_out = compress_path(artifact_path, tmp_path / "in", tmp_path / "a.pby", CONFIG, QUIET)
    assert left_out == ["link", "pipe"]
    (tmp_path / "b.pby").write_bytes(crafted(artifact, Entry([b"x"], b"suid", 0o6755)))
    restore(artifact_path, tmp_path / "b.pby", tmp_path / "out", QUIET)
    assert stat.S_IMODE((tmp_path / "out" / "suid").stat().st_mode) == 0o755


def model_bomb(artifact: Artifact, lengths: tuple[int, ...], text_bytes: int) -> bytes:
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, conditions(artifact, 1))
    writer.write(Frame(text_bytes, bytes(8), lengths, (False,) * len(lengths), bytes(8)))
    writer.close()
    return sealed(frame_head(MODEL, text_bytes), stream.getvalue())


def bombs(artifact: Artifact) -> dict[str, bytes]:
    """Files of a few bytes that ask for much."""
    zeros = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    declared = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    wide = b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"
    table = b"\x01" + zeros
    return {
        "zstd holds more than it says": sealed(frame_head(ZSTD, len(zeros)), zeros),
        "zstd declares a terabyte": sealed(frame_head(ZSTD, 1 << 28), declared),
        "zstd wants a wide window": sealed(frame_head(ZSTD, 1 << 28), wide),
        "zstd is shorter than it says": sealed(frame_head(ZSTD, 1 << 28), declared[:4]),
        "table is a bomb": sealed(frame_head(0, 0, table), b""),
        "table of many pieces": sealed(frame_head(0, 0, b"\x00" + varint(1 << 16)), b""),
        "table of too long a name": sealed(frame_head(0, 0, b"\x00\x01\x03\x00\xff\xff\x7f"), b""),
        "a lane of many tokens": model_bomb(artifact, (1 << 31,), 200),
        "a thousand lanes": model_bomb(artifact, (1,) * 1024, 200),
        "an index of many frames": MAGIC + end_record([], 1 << 61, 1 << 61),
    }


def test_bombs_cost_nothing(artifact: Artifact, artifact_path: Path, tmp_path: Path) -> None:
    for name, data in bombs(artifact).items():
        (tmp_path / "x.pby").write_bytes(data)
        try:
            with watched(), pytest.raises(ParbyteError):
                restore(artifact_path, tmp_path / "x.pby", tmp_path / "out", QUIET)
        except (MemoryError, TimeoutError) as error:
            pytest.fail(f"{name}: {error}")
        refused(artifact_path, data, tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutants_whose_checksums_fit_are_refused_or_decoded(
    artifact: Artifact,
    artifact_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("mutant")
    table = data.draw(st.binary(max_size=30).map(lambda raw: b"\x00" + raw) | st.binary(max_size=9))
    payload = data.draw(st.binary(max_size=60))
    text_bytes = data.draw(st.integers(len(payload), 1 << 28))
    kind = data.draw(st.integers(0, 2))
    (folder / "x.pby").write_bytes(sealed(frame_head(kind, text_bytes, table), payload))
    try:
        restore(artifact_path, folder / "x.pby", folder / "out", QUIET)
    except ParbyteError as error:
        assert "\n" not in str(error)
    assert set(os.listdir(folder)) <= {"x.pby", "out"}
