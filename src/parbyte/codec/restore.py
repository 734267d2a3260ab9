"""What the commands call: files, folders and streams into archives, and both formats back."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import BitstreamError, DataError, RecipeError
from parbyte.base.files import atomic_file
from parbyte.base.log import Console
from parbyte.codec.archive import (
    ArchiveResult,
    Sink,
    compress_entries,
    decode_into,
    finish,
    read_archive,
)
from parbyte.codec.bitstream import PLAIN_MAGICS, BitstreamReader
from parbyte.codec.compress import decompress_file
from parbyte.codec.config import CodecConfig
from parbyte.codec.crew import Crew
from parbyte.codec.pieces import Entry
from parbyte.codec.record import MAGIC, Source
from parbyte.codec.salvage import (
    Listed,
    Loss,
    holds_names,
    list_documents,
    read_document,
    salvage,
)
from parbyte.codec.tree import FileBlocks, NamesSink, folder_entries, new_folder, stream_blocks
from parbyte.pack.artifact import load_artifact


def compress_path(
    artifact_path: Path,
    source: Path | IO[bytes],
    out: Path | IO[bytes],
    config: CodecConfig,
    console: Console,
    jobs: int = 1,
) -> tuple[ArchiveResult, list[str]]:
    """Compress a file, a folder or a stream; return also the names that were left out.

    jobs: frames coded at once; the bytes do not depend on it.

    Raises ArtifactError, DataError, ResourceError.
    """
    artifact = load_artifact(artifact_path)
    left_out: list[str] = []
    if not isinstance(source, Path):
        entries: Iterable[Entry] = [Entry(stream_blocks(source))]
    elif source.is_dir():
        entries, left_out = folder_entries(source)
        if not entries:
            raise DataError(f"the folder '{source}' holds no files: there is nothing to compress")
        if isinstance(out, Path) and out.resolve().is_relative_to(source.resolve()):
            raise DataError(f"'{out}' lies in the folder that it is made of: choose another output")
    else:
        entries = [Entry(FileBlocks(source))]
        if isinstance(out, Path) and source.resolve() == out.resolve():
            raise DataError(f"'{out}' would overwrite its own source: choose another output")
    with _opened_for_writing(out) as sink:
        return compress_entries(artifact, config, entries, sink, console, jobs), left_out


def restore(
    artifact_path: Path,
    source: Path | IO[bytes],
    out: Path | IO[bytes] | None,
    console: Console,
    *,
    document: int | None = None,
    is_salvage: bool = False,
    jobs: int = 1,
) -> tuple[ArchiveResult, list[Loss]]:
    """Restore an archive or a bitstream, one document of it, or what is left; out None: nowhere.

    jobs: frames of an archive decoded at once.

    Raises BitstreamError, ArtifactError, DataError, ResourceError.
    """
    with _opened_for_reading(source, needs_seek=is_salvage or document is not None) as stream:
        name = f"'{source}': " if isinstance(source, Path) else ""
        try:
            if _first_bytes(stream) in PLAIN_MAGICS:
                if is_salvage or document is not None:
                    raise RecipeError(f"{name}only archives made by `compress` have parts to find")
                return _restore_plain(artifact_path, stream, source, out, console), []
            crew = Crew(load_artifact(artifact_path), console, jobs)
            return _restore(crew, stream, out, document, is_salvage)
        except BitstreamError as error:
            raise BitstreamError(f"{name}{error}") from None


def examine(
    artifact_path: Path, source: Path | IO[bytes], console: Console, jobs: int = 1
) -> tuple[ArchiveResult, list[Loss]]:
    """Decode an archive or a bitstream to nowhere and return what is damaged."""
    with _opened_for_reading(source, needs_seek=True) as stream:
        is_plain = _first_bytes(stream) in PLAIN_MAGICS
        given = source if isinstance(source, Path) else stream
        return restore(artifact_path, given, None, console, is_salvage=not is_plain, jobs=jobs)


def list_archive(source: Path | IO[bytes]) -> list[Listed]:
    """Return the documents of an archive or a bitstream. Raises BitstreamError, DataError."""
    with _opened_for_reading(source, needs_seek=True) as stream:
        name = f"'{source}': " if isinstance(source, Path) else ""
        try:
            if _first_bytes(stream) not in PLAIN_MAGICS:
                return list_documents(Source(stream))
            size = sum(frame.text_bytes for frame in BitstreamReader(stream).frames())
            return [Listed(b"", 0, size, False)]
        except BitstreamError as error:
            raise BitstreamError(f"{name}{error}") from None


def _restore(
    crew: Crew,
    stream: IO[bytes],
    out: Path | IO[bytes] | None,
    document: int | None,
    is_salvage: bool,
) -> tuple[ArchiveResult, list[Loss]]:
    watch, source, done = Stopwatch(), Source(stream), ArchiveResult()
    if document is not None:
        with _sink(out, is_folder=False) as sink:
            return finish(read_document(crew, source, document, sink), crew, watch), []
    if is_salvage:
        with _sink(out, is_folder=out is not None and holds_names(source)) as sink:
            losses = salvage(crew, source, sink, done)
        return finish(done, crew, watch), losses
    frames = read_archive(source)
    first = list(itertools.islice(frames, 1))
    is_folder = any(piece.name for coded in first for piece in coded.pieces)
    with _sink(out, is_folder=is_folder) as sink:
        decode_into(crew, itertools.chain(first, frames), sink, done)
        done.bitstream_bytes = source.position
    return finish(done, crew, watch), []


def _restore_plain(
    artifact_path: Path,
    stream: IO[bytes],
    source: Path | IO[bytes],
    out: Path | IO[bytes] | None,
    console: Console,
) -> ArchiveResult:
    """Restore a bitstream (format 1), whose reader wants files."""
    with tempfile.TemporaryDirectory(prefix="parbyte-") as name:
        path, text = Path(name) / "bitstream", Path(name) / "text"
        if isinstance(source, Path):
            path = source
        else:
            with path.open("wb") as copy:
                copy.writelines(stream_blocks(stream))
        done = decompress_file(artifact_path, path, out if isinstance(out, Path) else text, console)
        if out is not None and not isinstance(out, Path):
            out.writelines(FileBlocks(text))
    return ArchiveResult(
        bitstream_bytes=done.bitstream_bytes,
        text_bytes=done.text_bytes,
        documents=1,
        tokens=done.tokens,
        nats=done.nats,
        seconds=done.seconds,
    )


@contextmanager
def _sink(out: Path | IO[bytes] | None, *, is_folder: bool) -> Iterator[Sink]:
    if out is None:
        yield NamesSink()
    elif is_folder:
        if not isinstance(out, Path):
            raise DataError("the archive holds files with names: name a folder with -o OUT")
        with new_folder(out) as sink:
            yield sink
    else:
        with _opened_for_writing(out) as stream:
            yield Sink(stream)


@contextmanager
def _opened_for_writing(out: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(out, Path):
        with atomic_file(out) as stream:
            yield stream
    else:
        yield out
        out.flush()


@contextmanager
def _opened_for_reading(source: Path | IO[bytes], *, needs_seek: bool) -> Iterator[IO[bytes]]:
    """Open a file; copy a stream to disk if it has to be read in any other order."""
    if isinstance(source, Path):
        try:
            stream = source.open("rb")
        except OSError as error:
            raise DataError(f"cannot read '{source}': {error.strerror}") from None
        with stream:
            yield stream
    elif needs_seek and not source.seekable():
        with tempfile.TemporaryFile(prefix="parbyte-") as stream:
            stream.writelines(stream_blocks(source))
            stream.seek(0)
            yield stream
    else:
        yield source


def _first_bytes(stream: IO[bytes]) -> bytes:
    """Return a buffered stream's first bytes without taking them."""
    peek = getattr(stream, "peek", None)
    if peek is not None:
        return peek(len(MAGIC))[: len(MAGIC)]
    first = stream.read(len(MAGIC))
    stream.seek(0)
    return first
