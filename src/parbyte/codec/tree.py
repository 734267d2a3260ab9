"""Folders in and out of archives: what goes in, and that nothing gets out of its place.

A folder is restored under a temporary name beside its final one, which must not exist yet (or be
empty), and renamed when it is whole. So no file is ever replaced and no link is ever followed.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from parbyte.base.errors import BitstreamError, DataError
from parbyte.base.files import part_beside, resource_error
from parbyte.codec.archive import Sink
from parbyte.codec.pieces import Entry, Piece

MODE_BITS = 0o777
_BLOCK_BYTES = 1 << 20
_MAX_PART_BYTES = 255


def folder_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """Return a folder's files and empty folders by name, and the names of what is left out.

    Links, sockets and devices are left out: they could not be restored safely. Raises DataError.
    """
    entries: list[Entry] = []
    left_out: list[str] = []
    try:
        for name in _names(folder, ""):
            path = folder / name
            details = path.lstat()
            mode, stored = details.st_mode & MODE_BITS, os.fsencode(name)
            if stat.S_ISREG(details.st_mode):
                entries.append(Entry(FileBlocks(path), stored, mode))
            elif stat.S_ISDIR(details.st_mode):
                entries.append(Entry((), stored, mode, is_folder=True))
            else:
                left_out.append(name)
    except OSError as error:
        raise DataError(f"cannot read '{error.filename}': {error.strerror}") from None
    return entries, left_out


class FileBlocks:
    """Yields a file's bytes in blocks; opened when the first is asked for. Raises DataError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as stream:
                yield from stream_blocks(stream)
        except OSError as error:
            raise DataError(f"cannot read '{self._path}': {error.strerror}") from None


def stream_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a stream's bytes in blocks."""
    while block := stream.read(_BLOCK_BYTES):
        yield block


def safe_name(name: bytes) -> str:
    """Return a name from an archive, or raise BitstreamError if it could leave its folder."""
    parts = name.split(b"/")
    is_bad = any(part in (b"", b".", b"..") or len(part) > _MAX_PART_BYTES for part in parts)
    if is_bad or b"\0" in name:
        shown = shown_name(name)[:80]
        raise BitstreamError(f"the archive holds the unsafe name '{shown}': it is hostile")
    return os.fsdecode(name)


def shown_name(name: bytes) -> str:
    """Return a name as it may be printed: control characters escaped."""
    text = name.decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class NamesSink(Sink):
    """Drops documents, but refuses names that could not be restored."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[bytes] = set()

    def begin(self, piece: Piece) -> None:
        """Raise BitstreamError for an unsafe or repeated name."""
        if piece.name:
            self.check_name(piece)

    def check_name(self, piece: Piece) -> str:
        """Return the name of a document that begins. Raises BitstreamError."""
        name = safe_name(piece.name)
        if piece.name in self._seen:
            raise BitstreamError(f"the archive holds '{shown_name(piece.name)[:80]}' twice")
        self._seen.add(piece.name)
        return name


class FolderSink(NamesSink):
    """Writes documents as files of one folder that nobody else writes."""

    needs_names = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._folder_modes: list[tuple[Path, int]] = []
        self._stream: IO[bytes] | None = None

    def begin(self, piece: Piece) -> None:
        """Begin the document of this piece. Raises BitstreamError for unsafe or repeated names."""
        self.end()
        path = self._folder / self.check_name(piece)
        try:
            if piece.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                self._folder_modes.append((path, piece.mode & MODE_BITS))
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(path, flags, 0o600)
            self._stream = os.fdopen(handle, "wb")
            os.fchmod(handle, piece.mode & MODE_BITS)
        except (FileExistsError, NotADirectoryError):
            shown = shown_name(piece.name)[:80]
            raise BitstreamError(f"the archive needs '{shown}' as a file and a folder") from None
        except OSError as error:
            raise resource_error(error, path) from None

    def write(self, data: bytes) -> None:
        """Append to the document that was begun."""
        if self._stream is not None:
            self._stream.write(data)

    def end(self) -> None:
        """End the document that was begun, if any."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        """End the last document and give the folders their modes, the innermost first."""
        self.end()
        for path, mode in sorted(self._folder_modes, reverse=True):
            path.chmod(mode)


@contextmanager
def new_folder(folder: Path) -> Iterator[FolderSink]:
    """Give a sink whose files appear in `folder` when the block succeeds.

    Raises DataError if the folder holds anything, ResourceError if it cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and _is_empty(folder))):
        raise DataError(f"'{folder}' exists: archives are restored into a new or empty folder")
    work = part_beside(folder)
    sink = FolderSink(work / "new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(0o700)
        (work / "new").mkdir()
        yield sink
        sink.close()
        os.replace(work / "new", folder)
    except OSError as error:
        raise resource_error(error, folder) from None
    finally:
        sink.end()
        shutil.rmtree(work, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _names(folder: Path, prefix: str) -> Iterator[str]:
    """Yield files and empty folders below a folder in the order of their names."""
    for item in sorted(os.scandir(folder), key=lambda item: os.fsencode(item.name)):
        if item.is_dir(follow_symlinks=False):
            # A folder's own mode is kept too, so it stands before what it holds.
            yield prefix + item.name
            yield from _names(Path(item.path), f"{prefix}{item.name}/")
        else:
            yield prefix + item.name
