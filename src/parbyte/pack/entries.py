"""One tensor in the header: where its streams lie, what its grid is, and what repairs it.

    name, shape, bits, values                  values of 16 bits are float16
    scale, transposed                          of codes: scales, and whether columns come first
    groups                                     scales a row, if it has several
    fine = [start, stop, halvings]             columns with finer steps
    grid = "e8"                                the lattice
    book = [entries, width, stream]            the table of a codebook, float16
    low_rank = [left, right]                   each like a tensor of codes, without a name
    sparse = [count, gaps, values]             single weights, float16

What is left out of a row is not there. Every number is bounded by the tensor's own shape before
anything of its size is made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from parbyte.base.errors import ArtifactError
from parbyte.pack.container import Container, PayloadWriter, Placement
from parbyte.pack.fields import (
    read_integer,
    read_list,
    read_placement,
    read_shape,
    read_table,
    read_text,
)
from parbyte.pack.tensors import (
    CodeStreams,
    Layout,
    Shape,
    expand_codes,
    expand_floats,
    expand_sparse,
    rows_and_columns,
    shrink_codes,
    shrink_floats,
    shrink_sparse,
)
from parbyte.quant.config import FLOAT_BITS
from parbyte.quant.grid import Codes, Fine, LowRank, Sparse
from parbyte.quant.lattice import WIDTH

_FLOAT_KEYS = {"bits", "name", "shape", "values"}
_CODE_KEYS = {"bits", "scale", "shape", "transposed", "values"}
_EXTRA_KEYS = {"groups", "fine", "grid", "book", "low_rank", "sparse"}
_MOST_ENTRIES, _WIDEST_ENTRY = 256, 8
_MOST_HALVINGS = 4
_LARGEST_RANK = 64


@dataclass(frozen=True, kw_only=True)
class Book:
    """The table of a codebook: entries, weights an entry, and where it lies."""

    num_entries: int
    width: int
    values: Placement


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Corrections of single weights: how many, and where their gaps and values lie."""

    count: int
    gaps: Placement
    values: Placement


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor with streams of its own; 16 bits: float16 values and no scales."""

    name: str
    shape: Shape
    bits: int
    values: Placement
    transposed: bool = False
    scale: Placement | None = None
    groups: int = 0
    fine: Fine | None = None
    grid: str = "uniform"
    book: Book | None = None
    low_rank: "tuple[TensorEntry, TensorEntry] | None" = None
    sparse: Corrections | None = None

    def placements(self) -> list[Placement]:
        """Return where all streams of the tensor lie."""
        found = [self.values] if self.scale is None else [self.values, self.scale]
        found += [] if self.book is None else [self.book.values]
        for factor in self.low_rank or ():
            found += factor.placements()
        return found + ([] if self.sparse is None else [self.sparse.gaps, self.sparse.values])


def write_entry(
    item: Codes, streams: CodeStreams, coders: Sequence[str], payload: PayloadWriter
) -> dict[str, Any]:
    """Add all streams of a tensor of codes to the payload; return its row, without a name."""
    row: dict[str, Any] = {
        "shape": list(item.shape),
        "bits": item.bits,
        "transposed": int(streams.layout.transposed),
        "values": payload.add(streams.codes),
        "scale": payload.add(streams.scale),
    }
    if item.scale.ndim == item.codes.ndim:
        row["groups"] = item.scale.shape[-1]
    if item.fine is not None:
        row["fine"] = [item.fine.start, item.fine.stop, item.fine.halvings]
    if item.book is not None:
        row["book"] = [*item.book.shape, payload.add(shrink_floats([item.book], coders))]
    elif item.grid != "uniform":
        row["grid"] = item.grid
    for repair in item.repairs:
        if isinstance(repair, LowRank):
            factors = (repair.left, repair.right)
            row["low_rank"] = [
                write_entry(factor, shrink_codes(factor, coders), coders, payload)
                for factor in factors
            ]
        else:
            gaps, values = shrink_sparse(repair, coders)
            row["sparse"] = [len(repair.index), payload.add(gaps), payload.add(values)]
    return row


def read_entry(value: Any) -> TensorEntry:
    """Check and type one row of the header's table of tensors."""
    table = read_table(value, "tensor")
    name = read_text(table.get("name"), "tensor.name")
    if table.get("bits") != FLOAT_BITS:
        return _codes_entry(table, name, {"name", *_CODE_KEYS}, _EXTRA_KEYS)
    _check_keys(table, _FLOAT_KEYS, set())
    shape = read_shape(table["shape"])
    if not shape:
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has no dimension")
    values = read_placement(table["values"], name)
    return TensorEntry(name=name, shape=shape, bits=FLOAT_BITS, values=values)


def restore_codes(container: Container, entry: TensorEntry) -> Codes:
    """Return the codes of one tensor with all that belongs to them; ArtifactError if damaged."""
    assert entry.scale is not None, "a tensor of codes has scales"
    book, width = None, 1
    if entry.book is not None:
        shape = (entry.book.num_entries, entry.book.width)
        book, width = expand_floats(container.stream(entry.book.values), [shape])[0], shape[1]
    rows = entry.shape[:-1]
    like = Codes(
        torch.empty((*rows, entry.shape[-1] // width), dtype=torch.int8, device="meta"),
        torch.empty((*rows, *([entry.groups] if entry.groups else [])), device="meta"),
        entry.bits,
        grid=entry.grid,
        fine=entry.fine,
        book=book,
        repairs=_restore_repairs(container, entry),
    )
    layout = Layout(entry.values.coder, entry.transposed)
    streams = CodeStreams(layout, container.stream(entry.values), container.stream(entry.scale))
    return expand_codes(streams, like)


def _restore_repairs(container: Container, entry: TensorEntry) -> tuple[LowRank | Sparse, ...]:
    repairs: list[LowRank | Sparse] = []
    if entry.low_rank is not None:
        left, right = entry.low_rank
        repairs.append(LowRank(restore_codes(container, left), restore_codes(container, right)))
    if entry.sparse is not None:
        gaps, values = (container.stream(p) for p in (entry.sparse.gaps, entry.sparse.values))
        count = entry.sparse.count
        repairs.append(expand_sparse(gaps, values, count, math.prod(entry.shape)))
    return tuple(repairs)


def _codes_entry(
    table: dict[str, Any], name: str, needed: set[str], allowed: set[str]
) -> TensorEntry:
    _check_keys(table, needed, allowed)
    shape = read_shape(table["shape"])
    if not shape:
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has no dimension")
    bits = read_integer(table["bits"], "tensor.bits", FLOAT_BITS)
    if not 1 <= bits <= 8:
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has {bits} bits")
    entry = TensorEntry(
        name=name,
        shape=shape,
        bits=bits,
        transposed=read_integer(table["transposed"], "transposed", 1) == 1,
        values=read_placement(table["values"], name),
        scale=read_placement(table["scale"], name),
        groups=_divisor(table["groups"], "groups", shape) if "groups" in table else 0,
        fine=_fine(table["fine"], shape) if "fine" in table else None,
        grid=_grid(table, shape),
        book=_book(table["book"], shape, name) if "book" in table else None,
        low_rank=_low_rank(table["low_rank"], shape, name) if "low_rank" in table else None,
        sparse=_sparse(table["sparse"], shape, name) if "sparse" in table else None,
    )
    if entry.grid != "uniform" and entry.fine is not None:
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has both a grid and finer columns")
    return entry


def _check_keys(table: dict[str, Any], needed: set[str], allowed: set[str]) -> None:
    if not needed <= table.keys() <= needed | allowed:
        raise ArtifactError(
            f"is damaged: 'tensor' in its header must have {', '.join(sorted(needed))}"
        )


def _divisor(value: Any, what: str, shape: Shape) -> int:
    num_columns = rows_and_columns(shape)[1]
    number = read_integer(value, what, num_columns)
    if len(shape) < 2 or number == 0 or num_columns % number:
        raise ArtifactError(f"is damaged: '{what}' in its header is {number} of {num_columns}")
    return number


def _fine(value: Any, shape: Shape) -> Fine:
    numbers = read_list(value, "fine")
    if len(numbers) != 3:
        raise ArtifactError("is damaged: 'fine' in its header has no start, stop, halvings")
    start, stop = (read_integer(number, "fine", shape[-1]) for number in numbers[:2])
    halvings = read_integer(numbers[2], "fine", _MOST_HALVINGS)
    if start >= stop:
        raise ArtifactError("is damaged: 'fine' in its header has no columns")
    return Fine(start, stop, halvings)


def _grid(table: dict[str, Any], shape: Shape) -> str:
    if "book" in table:
        if "grid" in table:
            raise ArtifactError("is damaged: 'grid' in its header stands beside 'book'")
        return "codebook"
    if "grid" not in table:
        return "uniform"
    if table["grid"] != "e8" or rows_and_columns(shape)[1] % WIDTH:
        raise ArtifactError(f"is damaged: 'grid' in its header is {str(table['grid'])[:40]}")
    return "e8"


def _book(value: Any, shape: Shape, name: str) -> Book:
    items = read_list(value, "book")
    if len(items) != 3:
        raise ArtifactError("is damaged: 'book' in its header has no entries, width, stream")
    num_entries = read_integer(items[0], "book", _MOST_ENTRIES)
    width = _divisor(items[1], "book", shape)
    if num_entries == 0 or width > _WIDEST_ENTRY:
        raise ArtifactError("is damaged: 'book' in its header has an impossible size")
    return Book(num_entries=num_entries, width=width, values=read_placement(items[2], name))


def _low_rank(value: Any, shape: Shape, name: str) -> tuple[TensorEntry, TensorEntry]:
    items = read_list(value, "low_rank")
    if len(items) != 2:
        raise ArtifactError("is damaged: 'low_rank' in its header is no pair")
    left, right = (
        _codes_entry(read_table(item, "low_rank"), name, _CODE_KEYS, set()) for item in items
    )
    num_rows, num_columns = rows_and_columns(shape)
    rank = left.shape[0]
    fits = (left.shape, right.shape) == ((rank, num_rows), (rank, num_columns))
    if not fits or rank > min(_LARGEST_RANK, num_rows, num_columns):
        raise ArtifactError(f"is damaged: 'low_rank' in its header does not fit '{name[:60]}'")
    return left, right


def _sparse(value: Any, shape: Shape, name: str) -> Corrections:
    items = read_list(value, "sparse")
    if len(items) != 3:
        raise ArtifactError("is damaged: 'sparse' in its header has no count, gaps, values")
    count = read_integer(items[0], "sparse", math.prod(shape))
    gaps, values = (read_placement(item, name) for item in items[1:])
    return Corrections(count=count, gaps=gaps, values=values)
