"""Plain values of a header, each of the type and size that it must have, or an ArtifactError."""

import math
from typing import Any

from parbyte.base.errors import ArtifactError
from parbyte.pack.container import Placement
from parbyte.pack.tensors import Shape

MOST_WEIGHTS = 2**31
_LARGEST_OFFSET = 2**33


def read_placement(value: Any, what: str) -> Placement:
    """Return a stream's coder, offset and length."""
    items = read_list(value, f"stream of {what[:60]}")
    if len(items) != 3:
        raise ArtifactError(f"is damaged: the stream of '{what[:60]}' has no coder, offset, length")
    return Placement(
        read_text(items[0], "coder"),
        read_integer(items[1], "offset", _LARGEST_OFFSET),
        read_integer(items[2], "length", _LARGEST_OFFSET),
    )


def read_shape(value: Any) -> Shape:
    """Return a tensor's sizes, none of them 0, of at most 2^31 weights."""
    sizes = [read_integer(size, "shape", MOST_WEIGHTS) for size in read_list(value, "shape")]
    if len(sizes) > 8 or 0 in sizes or math.prod(sizes) > MOST_WEIGHTS:
        raise ArtifactError(f"declares an impossible shape: {str(sizes)[:60]}")
    return tuple(sizes)


def read_table(value: Any, what: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return a table, which must have exactly `keys` if they are given."""
    if not isinstance(value, dict):
        raise ArtifactError(f"is damaged: '{what}' in its header is no table")
    if keys is not None and sorted(value) != sorted(keys):
        raise ArtifactError(f"is damaged: '{what}' in its header must have {', '.join(keys)}")
    return value


def read_list(value: Any, what: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise ArtifactError(f"is damaged: '{what}' in its header is no list")
    return value


def read_text(value: Any, what: str) -> str:
    """Return text of printable ASCII."""
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise ArtifactError(f"is damaged: '{what}' in its header is no plain text")
    return value


def read_integer(value: Any, what: str, high: int) -> int:
    """Return a whole number of 0..high."""
    if type(value) is not int or not 0 <= value <= high:
        raise ArtifactError(f"is damaged: '{what}' in its header is {str(value)[:40]}")
    return value
