"""The decoder's doors are shut to sockets, programs and foreign files, and open to its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parbyte
from parbyte.audit import decode, isolation
from parbyte.audit.isolated_worker import Refused, make_hook
from parbyte.audit.proof import ProofResult

ROOT = str(Path(parbyte.__file__).parents[1])


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", ()),
        ("subprocess.Popen", ("/usr/bin/curl", [], None, None)),
        ("subprocess.Popen", ("/home/someone/gcc", [], None, None)),
        ("os.posix_spawn", ("/bin/sh", [], {})),
        ("os.fork", ()),
        ("os.system", ()),
        ("open", ("/etc/passwd", "r", 0)),
        ("open", ("/home/someone/heldout.txt", "rb", 0)),
        ("open", ("/srv/../etc/passwd", None, 0)),
        ("open", (f"{ROOT}/parbyte/new.py", "w", 0)),
    ],
)
def test_a_shut_door_is_refused(tmp_path: Path, event: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(Refused):
        make_hook(ROOT, str(tmp_path), [])(event, arguments)


def test_what_decoding_needs_is_open(tmp_path: Path) -> None:
    refused: list[str] = []
    hook = make_hook(ROOT, str(tmp_path), refused)
    hook("open", (str(tmp_path / "text"), "wb", 0))
    hook("open", (str(tmp_path), "w", 0))
    hook("open", (f"{ROOT}/parbyte/__init__.py", "r", 0))
    hook("open", (json.__file__, "rb", 0))
    hook("open", (3, "rb", 0))
    hook("import", ("json",))
    assert refused == []


def test_what_compiles_kernels_may_be_started(tmp_path: Path) -> None:
    refused: list[str] = []
    hook = make_hook(ROOT, str(tmp_path), refused)
    for program in (shutil.which("gcc"), shutil.which("clang"), "/sbin/ldconfig"):
        if program and Path(program).exists():
            hook("subprocess.Popen", (program, [], None, None))
    hook("os.posix_spawn", (f"{ROOT}/triton/backends/nvidia/bin/ptxas", [], {}))
    assert refused == []


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "artifact").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="passwd"):
        make_hook(ROOT, str(tmp_path), [])("open", (str(tmp_path / "artifact"), "rb", 0))


def test_the_compiler_that_the_machine_names_may_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    for program in (named, other):
        program.touch(mode=0o755)
    monkeypatch.setenv("CC", str(named))
    hook = make_hook(ROOT, str(tmp_path), [])
    hook("subprocess.Popen", (str(named), [], None, None))
    with pytest.raises(Refused):
        hook("subprocess.Popen", (str(other), [], None, None))


def test_the_worker_says_which_door_it_tried(tmp_path: Path) -> None:
    """The worker asks for a foreign artifact: the answer is a refusal, not a traceback."""
    names = ["/etc/passwd", "bitstream", "text", "quiet"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", isolation.WORKER, ROOT, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    error = json.loads(done.stdout)["error"]
    assert isolation.is_refusal(error) and "/etc/passwd" in error


def test_a_refusal_is_a_finding_of_t12_and_the_proof_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    def prove(*_: object, worker: str | None, **__: object) -> ProofResult:
        tries.append(worker is not None)
        reason = "refused: the decoder tried socket.connect" if worker else ""
        return ProofResult(
            proven=not reason,
            reason=reason,
            artifact_bytes=1,
            artifact_sha256="",
            bitstream_bytes=100,
            bitstream_sha256="",
            text_bytes=1,
            text_sha256="",
            seconds=0.0,
            decode_seconds=0.0,
        )

    monkeypatch.setattr(decode, "prove", prove)
    proof, shut = decode.check_decode(Path("a"), Path("b"), expected_sha256="", expected_bytes=1)
    assert (proof.passed, shut.passed, tries) == (True, False, [True, False])
    assert "socket.connect" in shut.findings[0].evidence
