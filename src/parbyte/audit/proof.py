"""The decode proof: a fresh process restores the text from the artifact and the bitstream alone.

The process starts in an empty folder that holds copies of the two files and nothing else; it is
told no other path. Its interpreter is isolated: no user site, no PYTHON* settings, no current
folder on its path. What it writes is then compared with the original, byte for byte.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import ArtifactError, BitstreamError, DataError, ProofError
from parbyte.base.files import atomic_file, resource_error, sha256_file
from parbyte.base.world import environment_for_child
from parbyte.codec import record
from parbyte.pack import container

_PACKAGE_ROOT = Path(__file__).parents[2]
_WORKER = (
    "import sys; root, *rest = sys.argv[1:]; sys.path.insert(0, root); "
    "from parbyte.audit.decode_worker import main; sys.exit(main(rest))"
)
_BLOCK_BYTES = 1 << 20
_MAGIC_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class ProofResult:
    """What the fresh process restored, and whether it is the text."""

    proven: bool
    reason: str
    """Empty if proven, else one line."""
    artifact_bytes: int
    artifact_sha256: str
    bitstream_bytes: int
    bitstream_sha256: str
    text_bytes: int
    text_sha256: str
    seconds: float
    """The whole process: start of the interpreter, loading, decoding."""
    decode_seconds: float
    """Loading and decoding alone."""


def prove(
    artifact: Path,
    bitstream: Path,
    *,
    expected_sha256: str,
    expected_bytes: int,
    original: Path | None = None,
    keep: Path | None = None,
    quiet: bool = True,
    launcher: Sequence[str] = (),
    worker: str | None = None,
) -> ProofResult:
    """Decode in a fresh process and compare: length, SHA-256 and, if given, the original's bytes.

    keep: where to leave the text if it is proven. launcher: command that starts the interpreter;
    worker: its program (see audit.isolation).
    Raises DataError if a file cannot be read, ArtifactError or BitstreamError if its format is of
    another version, ResourceError if there is no room for the proof.
    """
    refuse_other_versions(artifact, bitstream)
    hashes = {path: sha256_file(path) for path in (artifact, bitstream)}
    try:
        with tempfile.TemporaryDirectory(prefix="parbyte-proof-") as name:
            folder = Path(name)
            restored = folder / "text"
            watch = Stopwatch()
            try:
                shutil.copyfile(artifact, folder / "artifact")
                shutil.copyfile(bitstream, folder / "bitstream")
                command = [*launcher, sys.executable, "-I", "-c", worker or _WORKER]
                decode_seconds = _decode(command, folder, restored, quiet)
                reason = _compare(restored, expected_sha256, expected_bytes, original)
            except ProofError as error:
                decode_seconds, reason = 0.0, str(error)
            seconds = watch.elapsed_s()
            whole = restored.is_file()
            if keep is not None and not reason:
                with atomic_file(keep) as file, restored.open("rb") as text:
                    shutil.copyfileobj(text, file)
            return ProofResult(
                proven=not reason,
                reason=reason,
                artifact_bytes=artifact.stat().st_size,
                artifact_sha256=hashes[artifact],
                bitstream_bytes=bitstream.stat().st_size,
                bitstream_sha256=hashes[bitstream],
                text_bytes=restored.stat().st_size if whole else 0,
                text_sha256=sha256_file(restored) if whole else "",
                seconds=seconds,
                decode_seconds=decode_seconds,
            )
    except OSError as error:
        raise resource_error(error, Path(error.filename or tempfile.gettempdir())) from None


def refuse_other_versions(artifact: Path, bitstream: Path) -> None:
    """Raise ArtifactError or BitstreamError for a format that another version of parbyte reads.

    Such files were not decoded, which is no proof that they cannot be.
    """
    try:
        container.check_version(first_bytes(artifact))
        record.check_version(first_bytes(bitstream))
    except ArtifactError as error:
        raise ArtifactError(f"'{artifact}' {error}") from None
    except BitstreamError as error:
        raise BitstreamError(f"'{bitstream}': {error}") from None


def first_bytes(path: Path) -> bytes:
    """Return the bytes by which a file tells its kind. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MAGIC_BYTES)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None


def _decode(command: Sequence[str], folder: Path, restored: Path, quiet: bool) -> float:
    voice = "quiet" if quiet else "loud"
    # What is compiled for a GPU is compiled in the folder, from the package's sources alone.
    environment = environment_for_child(
        TMPDIR=str(folder), TRITON_CACHE_DIR=str(folder / "compiled")
    )
    # The names are relative: the process never learns where the run lives.
    names = ["artifact", "bitstream", restored.name, voice]
    done = subprocess.run(
        [*command, str(_PACKAGE_ROOT), *names],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ProofError(f"the decoding process died with status {done.returncode}") from None
    if "error" in answer:
        raise ProofError(answer["error"])
    return float(answer["decode_seconds"])


def _compare(restored: Path, sha256: str, num_bytes: int, original: Path | None) -> str:
    """Return what is wrong with the restored text in one line; empty if it is the original."""
    if restored.is_dir():
        return "the bitstream holds files with names, the original is one text"
    if not restored.is_file():
        return "the decoding process left no text"
    got_bytes = restored.stat().st_size
    if got_bytes != num_bytes:
        return f"the decoded text has {got_bytes:,} bytes, the original {num_bytes:,}"
    if sha256_file(restored) != sha256:
        return "the decoded text has another SHA-256 than the original"
    if original is not None and original.is_file() and not _are_equal(restored, original):
        return f"the decoded text differs from '{original}'"
    return ""


def _are_equal(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            block = left.read(_BLOCK_BYTES)
            if block != right.read(_BLOCK_BYTES):
                return False
            if not block:
                return True
