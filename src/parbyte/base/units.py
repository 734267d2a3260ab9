"""Every conversion between nats, bits, bytes, seconds and what a person writes."""

import math
import re

from parbyte.base.errors import RecipeError

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_TIME_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}


def nats_to_bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / math.log(2.0)


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return the bits per byte of `nats` spent on `num_bytes` bytes; infinite for no bytes."""
    return nats_to_bits(nats) / num_bytes if num_bytes else math.inf


def coded_bits_per_byte(bitstream_bytes: int, num_bytes: int) -> float:
    """Return the bits per byte of a bitstream that restores `num_bytes` bytes of text."""
    return 8.0 * bitstream_bytes / num_bytes if num_bytes else math.inf


def parse_size(text: str | int) -> int:
    """Read a size in bytes from "400 KB", "16_000_000" or an integer; KB is 1000 bytes."""
    return round(_parse(text, _SIZE_UNITS, "a size such as 400000, '400 KB' or '16 MB'"))


def parse_seconds(text: str | int | float) -> float:
    """Read a duration in seconds from "180 s", "10 min" or a number."""
    return _parse(text, _TIME_UNITS, "a duration such as 180, '180 s' or '10 min'")


def format_bytes(num_bytes: int) -> str:
    """Write a byte count with thousands separators."""
    return f"{num_bytes:,} bytes"


def _parse(text: str | int | float, units: dict[str, float] | dict[str, int], want: str) -> float:
    value = math.nan
    if isinstance(text, int | float) and not isinstance(text, bool):
        value = float(text) if abs(text) < 2**1000 else math.inf
    else:
        match = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*)\s*([a-zA-Z]*)\s*", str(text))
        if match is not None and match.group(2).lower() in units:
            digits = match.group(1).replace("_", "").replace(",", "")
            value = float(digits) * units[match.group(2).lower()]
    if not math.isfinite(value):
        raise RecipeError(f"'{text}' is not {want}")
    return value
