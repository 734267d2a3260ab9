"""Rewrite one part of a page of the documentation: what stands between a pair of markers."""

import sys
from pathlib import Path

from parbyte.base.files import write_bytes


def rewrite(page: Path, name: str, block: str) -> None:
    """Replace a page's block of that name."""
    write_bytes(page, replace_block(page.read_text(encoding="utf-8"), name, block).encode())


def replace_block(text: str, name: str, block: str) -> str:
    """Return a text with everything between its two markers of that name replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        sys.exit(f"the page must hold {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{block}\n{end}{after}"
