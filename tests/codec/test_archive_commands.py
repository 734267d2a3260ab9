"""The commands around archives: folders, pipes, one document, what is left, bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Say


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "a.txt").write_bytes(b"first " * 20)
    (tmp_path / "notes" / "deep" / "b.txt").write_bytes(b"second " * 20)
    (tmp_path / "notes" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "notes" / "run.sh").chmod(0o755)
    return tmp_path


def test_a_folder_becomes_one_file_and_a_folder_again(
    folder: Path, artifact_path: Path, say: Say
) -> None:
    code, out, _ = say("compress", artifact_path, folder / "notes", "--json", "-q")
    result = json.loads(out)
    assert (code, result["documents"]) == (0, 4)
    # The toy model shrinks nothing that zstd shrinks: no frame needs it.
    assert (result["frames"]["model"], result["decodes"]) == (0, "anywhere")
    archive = folder / "notes.pby"
    assert result["bitstream_bytes"] == archive.stat().st_size
    code, out, _ = say("list", archive, "--json")
    listed = json.loads(out)["documents"]
    assert [item["name"] for item in listed] == ["a.txt", "deep", "deep/b.txt", "run.sh"]
    assert [item["mode"] for item in listed][3] == "755"
    assert say("test", artifact_path, archive, "-q")[0] == 0
    code, _, _ = say("decompress", artifact_path, archive, "-o", folder / "back", "-q")
    assert code == 0
    assert (folder / "back" / "deep" / "b.txt").read_bytes() == b"second " * 20
    assert (folder / "back" / "run.sh").stat().st_mode & 0o777 == 0o755
    one = folder / "one"
    assert say("decompress", artifact_path, archive, "--doc", "2", "-o", one, "-q")[0] == 0
    assert one.read_bytes() == b"second " * 20
    code, _, err = say("decompress", artifact_path, archive, "--doc", "9", "-o", one, "-q")
    assert (code, "no document 9" in err) == (2, True)


def test_a_file_is_replaced_only_if_it_was_named(
    tmp_path: Path, artifact_path: Path, say: Say
) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(b"as it was")
    assert say("compress", artifact_path, letter, "-q")[0] == 0
    letter.write_bytes(b"written on since")
    code, _, err = say("decompress", artifact_path, tmp_path / "letter.txt.pby", "-q")
    assert (code, f"-o {letter}" in err) == (2, True)
    assert letter.read_bytes() == b"written on since"
    words = ("decompress", artifact_path, tmp_path / "letter.txt.pby", "-o", letter, "-q")
    assert say(*words)[0] == 0
    assert letter.read_bytes() == b"as it was"


def test_what_is_whole_of_a_damaged_file_is_saved(
    tmp_path: Path, artifact_path: Path, say: Say
) -> None:
    source = tmp_path / "noise"
    source.write_bytes(os.urandom(3000))
    assert say("compress", artifact_path, source, "-q")[0] == 0
    archive = tmp_path / "noise.pby"
    archive.write_bytes(archive.read_bytes()[:-1])
    assert say("decompress", artifact_path, archive, "-o", tmp_path / "x", "-q")[0] == 2
    assert not (tmp_path / "x").exists()
    code, out, _ = say("test", artifact_path, archive, "--json", "-q")
    assert (code, json.loads(out)["sound"]) == (1, False)
    words = ("decompress", artifact_path, archive, "-o", tmp_path / "x", "--salvage", "-q")
    code, _, err = say(*words)
    assert (code, "are lost" in err) == (1, True)
    assert (tmp_path / "x").read_bytes() == source.read_bytes()


def test_mistakes_are_one_line(folder: Path, artifact_path: Path, say: Say) -> None:
    (folder / "empty").mkdir()
    say("compress", artifact_path, folder / "notes", "-q")
    for words in (
        ("compress", artifact_path, folder / "empty"),
        ("compress", artifact_path, folder / "notes", "-o", folder / "notes" / "in.pby"),
        ("decompress", artifact_path, folder / "notes.pby"),
        ("decompress", artifact_path, folder / "notes.pby", "--doc", "0"),
        ("decompress", artifact_path, folder / "notes.pby", "-o", "-"),
        ("decompress", artifact_path, folder / "notes.pby", "-o", "-", "--json"),
        ("list", folder / "notes" / "a.txt"),
        ("test", artifact_path, artifact_path),
    ):
        code, out, err = say(*words, "-q")
        assert (code in (1, 2) and out in ("",)) or words[0] == "test"
        assert len(err.splitlines()) <= 2
    assert not (folder / "notes" / "in.pby").exists()


MEASURED = """
import contextlib, sys
from parbyte.base.machine import process_peak_bytes
from parbyte.cli import main
from parbyte.codec import methods
methods._SAMPLE_BYTES = 8  # less time for the model's trial of every frame
command, model, short = sys.argv[1:4]
options = sys.argv[4:] + ["--jobs", "1", "-q"]
with contextlib.redirect_stdout(sys.stderr):
    assert main([command, model, short, "-o", short + ".out", *options]) == 0
before = process_peak_bytes()
assert main([command, model, "-", *options]) == 0
print(process_peak_bytes() - before, file=sys.stderr)
"""


def piped(command: list[Any], source: Path, out: Path) -> int:
    """Run a command on a short file, then between two pipes; return what the peak grew by."""
    with source.open("rb") as given, out.open("wb") as sink:
        feeder = subprocess.Popen(["cat"], stdin=given, stdout=subprocess.PIPE)
        reader = subprocess.Popen(
            [sys.executable, "-c", MEASURED, *map(str, command)],
            stdin=feeder.stdout,
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert feeder.stdout is not None
        feeder.stdout.close()  # else the feeder waits for ever for a reader that has failed
        said = reader.communicate()[1]
        feeder.wait()
    assert reader.returncode == 0, said
    return int(said.split()[-1])


@pytest.mark.slow
def test_pipes_need_little_memory_however_long_the_text(
    tmp_path: Path, artifact_path: Path
) -> None:
    frame = b"".join(b"%d: no line is quite like another\n" % n for n in range(1 << 15))
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(frame * 3)
    long.write_bytes(frame * 20)
    packed, back = tmp_path / "packed", tmp_path / "back"
    size, allowed = ["--frame-bytes", str(len(frame))], 12 * len(frame)
    assert piped(["compress", artifact_path, short, *size], long, packed) < allowed
    assert piped(["decompress", artifact_path, f"{short}.out"], packed, back) < allowed
    assert back.read_bytes() == long.read_bytes()
