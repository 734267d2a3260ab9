"""What a user can get wrong: one clear line, the right exit code, nothing half-written."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def assert_nothing_half_written(folder: Path) -> None:
    scraps = [path for path in folder.rglob("*") if path.name.endswith(".part")]
    assert scraps == []
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())


def test_a_missing_corpus_is_named(toy: Path, parbyte: Command) -> None:
    answer = parbyte("run", toy, "--out", toy.parent / "run", "--set", "text.corpus=nowhere.txt")
    assert answer.code == 2
    assert "nowhere.txt" in answer.complaint
    assert_nothing_half_written(toy.parent)


def test_a_missing_recipe_leaves_no_folder(parbyte: Command, tmp_path: Path) -> None:
    answer = parbyte("run", tmp_path / "none.toml", "--out", tmp_path / "run")
    assert answer.code == 2
    assert "none.toml" in answer.complaint
    assert not (tmp_path / "run").exists()


def test_a_missing_model_or_file_is_named(parbyte: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("text")
    for command in ("compress", "decompress", "score"):
        answer = parbyte(command, tmp_path / "none.parbyte", text)
        assert (answer.code, "none.parbyte" in answer.complaint) == (2, True)
        answer = parbyte(command, text, tmp_path / "none.txt")
        assert (answer.code, "none.txt" in answer.complaint) == (2, True)
    for command in ("inspect", "generate"):
        assert parbyte(command, tmp_path / "none.parbyte").code == 2


def test_a_file_that_is_no_artifact_is_refused(parbyte: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("this is no model")
    for arguments in (("inspect", text), ("score", text, text), ("compress", text, text)):
        answer = parbyte(*arguments)
        assert (answer.code, "text.txt" in answer.complaint) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_corpus_is_refused(toy: Path, parbyte: Command, text: str) -> None:
    (toy.parent / "corpus.txt").write_text(text)
    answer = parbyte("run", toy, "--out", toy.parent / "run")
    assert answer.code == 2
    assert answer.complaint
    assert_nothing_half_written(toy.parent)


def test_a_corpus_of_one_document_is_refused(toy: Path, parbyte: Command) -> None:
    (toy.parent / "corpus.txt").write_text("One paragraph and no more.\n")
    answer = parbyte("run", toy, "--out", toy.parent / "run")
    assert answer.code == 2
    assert "document" in answer.complaint
    # The toy's corpus falls into paragraphs already: to advise it again would help nobody.
    assert "empty lines" in answer.complaint and "text.documents" not in answer.complaint
    assert_nothing_half_written(toy.parent)


def test_a_cap_of_1000_bytes_is_refused_with_the_parts(toy: Path, parbyte: Command) -> None:
    run = toy.parent / "run"
    answer = parbyte("run", toy, "--out", run, "--set", "track.cap_bytes=1000")
    assert answer.code == 2
    assert "1,000" in answer.complaint and "embed" in answer.complaint
    assert not (run / "model.parbyte").exists()
    assert_nothing_half_written(run)


def test_a_budget_of_one_second_works(toy: Path, parbyte: Command) -> None:
    run = toy.parent / "run"
    answer = parbyte(
        "train", toy, "--out", run, "--set", "train.steps=0", "--set", "train.seconds=1", "--json"
    )
    assert answer.code == 0
    assert json.loads(answer.out)["steps"] >= 1


def test_a_folder_that_cannot_be_made_is_refused(toy: Path, parbyte: Command) -> None:
    answer = parbyte("run", toy, "--out", toy / "run")
    assert answer.code == 2
    assert str(toy / "run") in answer.complaint


def test_a_folder_of_something_else_is_left_alone(toy: Path, parbyte: Command) -> None:
    before = sorted(path.name for path in toy.parent.iterdir())
    answer = parbyte("run", toy, "--out", toy.parent)
    assert answer.code == 2
    assert "no run folder" in answer.complaint
    assert sorted(path.name for path in toy.parent.iterdir()) == before


def test_a_second_run_in_the_same_folder_is_refused(toy: Path, parbyte: Command) -> None:
    import fcntl

    run = toy.parent / "run"
    run.mkdir()
    with (run / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        answer = parbyte("run", toy, "--out", run)
    assert answer.code == 2
    assert "another run is using" in answer.complaint


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small tmpfs, or skip the test where that is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_disk_is_refused(toy: Path, parbyte: Command) -> None:
    with mounted(toy.parent / "disk", "size=1m,ro") as disk:
        answer = parbyte("run", toy, "--out", disk / "run")
    assert answer.code == 2
    assert "Read-only" in answer.complaint


@pytest.mark.parametrize("size", ["40k", "180k"])
def test_a_full_disk_is_one_line_and_leaves_no_scraps(
    toy: Path, parbyte: Command, size: str
) -> None:
    """40k: the shards do not fit; 180k: they do, the weights do not."""
    with mounted(toy.parent / "disk", f"size={size}") as disk:
        answer = parbyte("run", toy, "--out", disk / "run")
        assert answer.code == 2
        assert "No space left" in answer.complaint
        assert (disk / "run" / "data" / "manifest.json").exists() == (size == "180k")
        assert not (disk / "run" / "weights.safetensors").exists()
        assert_nothing_half_written(disk)


def test_compressing_onto_a_full_disk_leaves_nothing(
    toy: Path, parbyte: Command, tmp_path: Path
) -> None:
    run = toy.parent / "run"
    assert parbyte("pack", toy, "--out", run, "--quiet").code == 0
    source = tmp_path / "noise.txt"
    source.write_bytes(os.urandom(5000))
    with mounted(toy.parent / "disk", "size=4k") as disk:
        answer = parbyte("compress", run, source, "-o", disk / "noise.pby", "--threads", "1")
        assert answer.code == 2
        assert "No space left" in answer.complaint
        assert list(disk.iterdir()) == []


def test_a_damaged_book_or_recipe_in_the_folder_only_costs_time(
    toy: Path, parbyte: Command
) -> None:
    run = toy.parent / "run"
    assert parbyte("data", toy, "--out", run).code == 0
    (run / "stages.json").write_text('{"format": 1, "stages": {"data": ')
    (run / "recipe.toml").write_text("track = 7")
    assert parbyte("data", toy, "--out", run).code == 0
