"""Where an artifact's bytes are, and what to say when there are too many."""

import math
from dataclasses import replace
from typing import Any

from parbyte.base.errors import CapError
from parbyte.base.units import format_bytes
from parbyte.model.roles import Role, role_of
from parbyte.pack.container import Container
from parbyte.pack.entries import TensorEntry
from parbyte.pack.header import Header

PARTS: tuple[str, ...] = (
    "header",
    "tokenizer",
    "embed",
    "tables",
    "attn",
    "mlp",
    "proj",
    "small",
    "prior",
    "code",
)
_PART_OF_ROLE = {
    Role.EMBED: "embed",
    Role.TABLE: "tables",
    Role.ATTN: "attn",
    Role.MLP: "mlp",
    Role.PROJ: "proj",
    Role.SCALAR: "small",
}


def count_parts(container: Container, header: Header) -> dict[str, int]:
    """Return bytes by part; they sum to the file's size.

    "code" is what a track may count of the program itself; no code travels in the file, so it is 0.
    """
    parts = dict[str, int].fromkeys(PARTS, 0)
    parts["header"] = container.header_bytes
    parts["tokenizer"] = header.tokenizer.length
    parts["small"] = header.small.length
    parts["prior"] = 0 if header.prior is None else header.prior.length
    for entry in header.tensors:
        parts[_PART_OF_ROLE[role_of(entry.name)]] += _entry_bytes(entry)
    return parts


def tensor_rows(header: Header) -> list[dict[str, Any]]:
    """Return one plain row per tensor that has streams of its own, with its bits per weight."""
    rows = []
    for entry in header.tensors:
        num_weights, num_bytes = math.prod(entry.shape), _entry_bytes(entry)
        rows.append(
            {
                "name": entry.name,
                "role": str(role_of(entry.name)),
                "shape": list(entry.shape),
                "bits": entry.bits,
                "coder": entry.values.coder + ("/columns" if entry.transposed else ""),
                "bytes": num_bytes,
                "grid": entry.grid,
                "scale_bytes": 0 if entry.scale is None else entry.scale.length,
                "repair_bytes": _entry_bytes(entry) - _grid_bytes(entry),
                "bits_per_weight": round(8 * num_bytes / num_weights, 4),
            }
        )
    return rows


def cap_error(parts: dict[str, int], cap_bytes: int, remedy: str) -> CapError:
    """Return the one-line error for an artifact over its cap; `.parts` holds the whole table."""
    total = sum(parts.values())
    largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {num_bytes:,}" for name, num_bytes in largest)
    return CapError(
        f"artifact is {format_bytes(total)}, cap {cap_bytes:,}: over by {total - cap_bytes:,} "
        f"(largest parts: {shares}); {remedy}",
        parts,
    )


def _entry_bytes(entry: TensorEntry) -> int:
    return sum(placement.length for placement in entry.placements())


def _grid_bytes(entry: TensorEntry) -> int:
    """Return the bytes of codes, scales and codebook, without repairs."""
    return _entry_bytes(replace(entry, low_rank=None, sparse=None))
