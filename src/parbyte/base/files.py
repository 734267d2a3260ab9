"""Files that are either whole or absent: atomic writes, hashes, JSON."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from parbyte.base.errors import DataError, ResourceError


@contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it over `path` only if the block succeeds.

    Raises ResourceError when the folder cannot be written or the disk is full.
    """
    if path.is_dir():
        # The renaming would refuse it too, but only after all the work.
        raise ResourceError(f"cannot write '{path}': it is a folder; name a file")
    temporary = part_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode.replace("w", "x")) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise resource_error(error, path) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def part_beside(path: Path) -> Path:
    """Return a free name beside `path` for what is not finished.

    Whoever knows it before anything is made there can remove it, whenever an interrupt comes.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_file(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read one JSON file; DataError if it is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON: {error}") from None


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, reading it in blocks."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None


def resource_error(error: OSError, path: Path) -> ResourceError:
    """Translate an operating-system refusal to write `path` into one line."""
    remedy = {
        errno.ENOSPC: "free some space or choose another folder",
        errno.EACCES: "choose a folder that you may write",
        errno.EROFS: "choose a folder that you may write",
        errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
        errno.EEXIST: "a file stands where a folder is needed: choose another path",
    }.get(error.errno or 0, "choose another path")
    return ResourceError(f"cannot write '{path}': {error.strerror}; {remedy}")
