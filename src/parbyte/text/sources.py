"""Where text comes from: the built-in book, text files, JSON lines, zstd, folders of these.

Flows in from paths; flows out as a `Corpus` that streams documents (bytes) as often as asked.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from parbyte.base.errors import DataError
from parbyte.text.builtin import KJV_CHAPTERS, KJV_NAME, kjv_chapters
from parbyte.text.config import TextConfig

# The longest first: `.jsonl.zst` also ends in `.zst`.
SUFFIXES = (".jsonl.zst", ".jsonl", ".txt", ".zst")

_BLOCK_BYTES = 1 << 20
# `zstd --long=27` and `--ultra -22` need this window; larger ones could ask for gigabytes.
_ZSTD_WINDOW_BYTES = 1 << 27


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as a stream of documents; each call of `documents` starts from the beginning."""

    name: str
    summary: str
    read: Callable[[], Iterator[bytes]]
    """Opens the stream of all documents, empty ones included."""
    rule: str = "file"
    """How its plain-text files fall into documents: "file" or "paragraphs"."""

    def describe(self) -> str:
        """Return one line for the user: name, files, what a document is."""
        return f"{self.name}: {self.summary}"

    def documents(self) -> Iterator[bytes]:
        """Yield every document that holds at least one byte, in the corpus's order."""
        return (document for document in self.read() if document)


def open_corpus(config: TextConfig) -> Corpus:
    """Open `config.corpus`: "kjv" or a path; nothing is read yet.

    The rule "auto" makes one document of each plain-text file, but of the only one its paragraphs.
    Raises DataError if the path is missing, of an unknown kind, or a folder without text files.
    """
    if config.corpus == KJV_NAME:
        summary = f"the built-in King James Bible, documents: its {KJV_CHAPTERS:,} chapters"
        return Corpus(name=KJV_NAME, summary=summary, read=kjv_chapters)
    files = _find_files(Path(config.corpus).expanduser())
    is_plain = [_suffix(path) not in (".jsonl", ".jsonl.zst") for path in files]
    is_alone = config.documents == "auto" and is_plain == [True]
    by_paragraph = config.documents == "paragraphs" or is_alone
    why = ", as the one file would be one document" if is_alone else ""
    kinds = (["paragraphs" if by_paragraph else "files"] if any(is_plain) else []) + (
        [] if all(is_plain) else ["JSON lines"]
    )
    plural = "" if len(files) == 1 else "s"
    return Corpus(
        name=config.corpus,
        summary=f"{len(files):,} file{plural}, documents: {' and '.join(kinds)}{why}",
        read=partial(_read_files, files, by_paragraph),
        rule="paragraphs" if by_paragraph else "file",
    )


def split_paragraphs(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Group lines into paragraphs; blank lines stay with the paragraph before them.

    lines: with their line ends. The paragraphs join to exactly the same bytes.
    """
    held: list[bytes] = []
    has_words = False
    after_blank = False
    for line in lines:
        is_blank = not line.strip()
        if has_words and after_blank and not is_blank:
            yield b"".join(held)
            held, has_words = [], False
        held.append(line)
        has_words = has_words or not is_blank
        after_blank = is_blank
    if held:
        yield b"".join(held)


def _find_files(path: Path) -> list[Path]:
    known = ", ".join(reversed(SUFFIXES))
    if path.is_file():
        if not _suffix(path):
            raise DataError(f"corpus '{path}' is of an unknown kind; known are {known}")
        return [path]
    if not path.is_dir():
        raise DataError(f"corpus '{path}' does not exist; give 'kjv' or an existing file or folder")
    files = sorted(child for child in path.iterdir() if child.is_file() and _suffix(child))
    if not files:
        raise DataError(f"corpus folder '{path}' holds no text; it needs files ending in {known}")
    return files


def _suffix(path: Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")


def _read_files(files: list[Path], by_paragraph: bool) -> Iterator[bytes]:
    for path in files:
        suffix = _suffix(path)
        blocks = _zstd_blocks(path) if suffix.endswith(".zst") else _plain_blocks(path)
        if suffix.startswith(".jsonl"):
            yield from _json_documents(path, _lines(blocks))
        elif by_paragraph:
            yield from split_paragraphs(_lines(blocks))
        else:
            yield b"".join(blocks)


def _plain_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    frame = None
    try:
        for packed in _plain_blocks(path):
            while packed:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(packed)
                packed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise DataError(f"'{path}' is no whole zstd file: {error}; fetch it again") from None
    if frame is not None:
        raise DataError(f"'{path}' is cut short: its last zstd frame has no end; fetch it again")


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newline; only LF ends a line, the last line may have none."""
    held: list[bytes] = []
    for block in blocks:
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield b"".join([*held, line, b"\n"])
            held = []
        held.append(rest)
    if last := b"".join(held):
        yield last


def _json_documents(path: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _json_document(f"'{path}' line {number:,}", line)


def _json_document(where: str, line: bytes) -> bytes:
    try:
        row = json.loads(line.decode())
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{where} is no JSON object with a string under 'text'")
        return text.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise DataError(f"{where} is not UTF-8: {error.reason}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from None
