"""`parbyte prove MODEL BITSTREAM --text FILE`: what a referee can do who was handed three files."""

import json
from pathlib import Path

import pytest
from tests.codec.conftest import letters
from tests.conftest import Say

from parbyte.base.files import sha256_bytes
from parbyte.base.log import Console
from parbyte.codec.compress import compress_file
from parbyte.codec.config import CodecConfig


@pytest.fixture
def handed(tmp_path: Path, artifact_path: Path) -> tuple[Path, Path, Path]:
    """Return an artifact, a bitstream and the text that it stands for."""
    text, bitstream = tmp_path / "text.txt", tmp_path / "text.pby"
    text.write_bytes(letters(300))
    compress_file(artifact_path, text, bitstream, CodecConfig(), Console(quiet=True))
    return artifact_path, bitstream, text


def test_a_bitstream_that_decodes_to_the_text_is_proven(
    handed: tuple[Path, Path, Path], say: Say
) -> None:
    model, bitstream, text = handed
    code, out, err = say("prove", model, bitstream, "--text", text, "--json", "-q")
    verdict = json.loads(out)
    assert (code, err, verdict["decoded_equal"], verdict["reason"]) == (0, "", True, "")
    assert verdict["text_bytes"] == 300
    assert verdict["bitstream_bytes"] == bitstream.stat().st_size
    assert verdict["artifact_bytes"] == model.stat().st_size
    assert verdict["coded_bpb"] == 8 * bitstream.stat().st_size / 300
    assert verdict["hashes"]["decoded_text"] == sha256_bytes(text.read_bytes())


def test_an_archive_is_proven_the_same_way_and_a_folder_is_no_text(
    handed: tuple[Path, Path, Path], tmp_path: Path, say: Say
) -> None:
    model, _, text = handed
    archive, folder = tmp_path / "archive.pby", tmp_path / "folder"
    assert say("compress", model, text, "-o", archive, "-q")[0] == 0
    code, out, _ = say("prove", model, archive, "--text", text, "-q")
    assert (code, out.splitlines()[0].startswith("decoded equal yes")) == (0, True)
    assert f"bpb {8 * archive.stat().st_size / 300:.4f} (coded)" in out
    folder.mkdir()
    (folder / "text.txt").write_bytes(text.read_bytes())
    assert say("compress", model, folder, "-o", archive, "-q")[0] == 0
    code, out, _ = say("prove", model, archive, "--text", text, "-q")
    assert (code, "files with names" in out) == (1, True)


def test_another_text_is_not_proven_and_nothing_is_called_coded(
    handed: tuple[Path, Path, Path], say: Say
) -> None:
    model, bitstream, text = handed
    text.write_bytes(b"e" + text.read_bytes()[1:])
    code, out, _ = say("prove", model, bitstream, "--text", text, "--json", "-q")
    verdict = json.loads(out)
    assert (code, verdict["decoded_equal"], verdict["coded_bpb"]) == (1, False, None)
    assert verdict["reason"] == "the decoded text has another SHA-256 than the original"


def test_another_model_or_a_damaged_bitstream_is_not_proven(
    handed: tuple[Path, Path, Path], other_artifact_path: Path, say: Say
) -> None:
    _, bitstream, text = handed
    code, out, _ = say("prove", other_artifact_path, bitstream, "--text", text, "-q")
    assert (code, "coded)" in out) == (1, False)
    first = out.splitlines()[0]
    assert first.startswith("decoded equal no (") and "another model" in first
    bitstream.write_bytes(bitstream.read_bytes()[:-1])
    code, out, _ = say("prove", handed[0], bitstream, "--text", text, "-q")
    assert (code, "damaged" in out) == (1, True)


def test_wrong_input_is_one_line_and_2(
    handed: tuple[Path, Path, Path], tmp_path: Path, say: Say
) -> None:
    model, bitstream, text = handed
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").touch()
    ours, later = ("--text", text), tmp_path / "later"
    later.write_bytes(b"PBYB\x09" + bitstream.read_bytes()[5:])
    older = tmp_path / "older.parbyte"
    older.write_bytes(b"parbyte\x01" + model.read_bytes()[8:])
    for words, hint in (
        ((model, bitstream), "--text"),
        ((model,), "BITSTREAM"),
        ((model, *ours), "BITSTREAM"),
        ((run, bitstream, *ours), "is a folder"),
        ((run, *ours), "is a folder"),
        ((model, bitstream, *ours, "--out", run), "--out"),
        ((model, bitstream, *ours, "--set", "train.seed=1"), "--set"),
        ((bitstream, model, *ours), "no parbyte artifact"),
        ((model, text, *ours), "no file that parbyte compressed"),
        ((model, bitstream, "--text", tmp_path / "none"), "no file"),
        ((older, bitstream, *ours), "format version 1"),
        ((model, later, *ours), "format 9, this parbyte reads formats 1, 2, 4"),
    ):
        code, out, err = say("prove", *words)
        assert (code, out, len(err.splitlines()), hint in err) == (2, "", 1, True), err
