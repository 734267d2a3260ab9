"""The decode proof: only the very bytes are proven, by a process that knows nothing else."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parbyte.audit import proof
from parbyte.base.errors import DataError, ResourceError
from parbyte.base.files import sha256_bytes

TEXT = b"In the beginning was the Word.\n" * 3
# Stands in for the decoder: it sees its arguments and its folder, and "decodes" by copying.
WORKER = """
import json, os, pathlib, sys
root, artifact, bitstream, out, voice = sys.argv[1:]
pathlib.Path(out).write_bytes(pathlib.Path(bitstream).read_bytes())
seen = {"argv": sys.argv[2:], "files": sorted(os.listdir()), "isolated": sys.flags.isolated}
pathlib.Path(SEEN).write_text(json.dumps(seen))
print(json.dumps({"decode_seconds": 0.5}))
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    artifact, bitstream = tmp_path / "model.parbyte", tmp_path / "heldout.pby"
    artifact.write_bytes(b"model")
    bitstream.write_bytes(TEXT)
    return artifact, bitstream


@pytest.fixture
def prove(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    worker = WORKER.replace("SEEN", repr(str(tmp_path / "seen.json")))
    monkeypatch.setattr(proof, "_WORKER", worker)

    def call(text: bytes, **changes: Any) -> proof.ProofResult:
        expected = {"expected_sha256": sha256_bytes(text), "expected_bytes": len(text)}
        return proof.prove(*files, **{**expected, **changes})

    return call


def test_the_same_bytes_are_proven(prove: Callable[..., Any], files: tuple[Path, Path]) -> None:
    result = prove(TEXT)
    assert (result.proven, result.reason) == (True, "")
    assert result.text_sha256 == sha256_bytes(TEXT)
    assert result.text_bytes == result.bitstream_bytes == len(TEXT)
    assert result.artifact_sha256 == sha256_bytes(b"model")
    assert (result.decode_seconds, result.seconds > 0) == (0.5, True)


def test_the_process_is_isolated_and_sees_only_copies_of_the_two_files(
    prove: Callable[..., Any], tmp_path: Path
) -> None:
    import json

    prove(TEXT)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["files"] == ["artifact", "bitstream", "text"]
    assert seen["argv"] == ["artifact", "bitstream", "text", "quiet"]
    assert seen["isolated"] == 1


def test_one_changed_bit_is_not_proven(prove: Callable[..., Any]) -> None:
    result = prove(bytes([TEXT[0] ^ 1]) + TEXT[1:])
    assert not result.proven
    assert "another SHA-256" in result.reason


def test_another_length_is_not_proven(prove: Callable[..., Any]) -> None:
    assert "has 93 bytes, the original 94" in prove(TEXT + b"!").reason


def test_the_original_is_compared_byte_for_byte(prove: Callable[..., Any], tmp_path: Path) -> None:
    original = tmp_path / "heldout.txt"
    original.write_bytes(TEXT)
    assert prove(TEXT, original=original).proven
    original.write_bytes(TEXT[:-1])
    assert "differs from" in prove(TEXT, original=original).reason


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("""print('{"error": "the bitstream is damaged"}')""", "the bitstream is damaged"),
        ("import sys; sys.exit(9)", "died with status 9"),
    ],
)
def test_a_decoder_that_fails_is_a_reason_and_no_crash(
    prove: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, worker: str, reason: str
) -> None:
    monkeypatch.setattr(proof, "_WORKER", worker)
    result = prove(TEXT)
    assert not result.proven
    assert reason in result.reason


def test_a_decoder_that_writes_nothing_is_not_proven(
    prove: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_WORKER", """print('{"decode_seconds": 1}')""")
    result = prove(TEXT)
    assert not result.proven
    assert "no text" in result.reason


def test_missing_files_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        proof.prove(tmp_path / "nothing", tmp_path / "none", expected_sha256="", expected_bytes=0)


def test_no_room_for_the_proof_is_one_line(
    prove: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/tmp/somewhere")

    monkeypatch.setattr(proof.shutil, "copyfile", full)
    with pytest.raises(ResourceError, match="No space left"):
        prove(TEXT)


def test_an_interrupt_ends_the_decoder(
    prove: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen[bytes]):
        def communicate(self, *args: Any, **kwargs: Any) -> Any:
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(proof, "_WORKER", "import threading; threading.Event().wait(60)")
    monkeypatch.setattr(subprocess, "Popen", Watched)
    with pytest.raises(KeyboardInterrupt):
        prove(TEXT)
    assert started[0].poll() is not None
