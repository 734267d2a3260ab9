"""Quantised tensors to streams and back: layout of codes, scales and float16 values.

Shapes: R rows, C columns; leading dimensions of a stack count as rows, a vector is one row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.errors import ArtifactError
from parbyte.pack.scales import expand_scale, from_planes, shrink_scale, to_planes
from parbyte.pack.streams import Stream, expand, shrink
from parbyte.quant.grid import Codes, Sparse

Shape = tuple[int, ...]
_GAP_BYTES = 4


@dataclass(frozen=True)
class Layout:
    """How one tensor's codes were laid out and coded; given back, it saves trying the others."""

    coder: str
    transposed: bool


@dataclass(frozen=True)
class CodeStreams:
    """One tensor's codes and scales as streams."""

    layout: Layout
    codes: Stream
    scale: Stream


def rows_and_columns(shape: Shape) -> tuple[int, int]:
    """Return R and C of a tensor of any shape."""
    return math.prod(shape[:-1]), shape[-1]


def shrink_codes(codes: Codes, coders: Sequence[str], layout: Layout | None = None) -> CodeStreams:
    """Code one tensor by the smallest of coders and layouts, or as `layout` says."""
    num_rows, num_columns = rows_and_columns(tuple(codes.codes.shape))
    centre = codes.num_symbols // 2
    symbols_RC = (codes.codes.numpy().astype(np.int16) + centre).astype(np.uint8)
    symbols_RC = symbols_RC.reshape(num_rows, num_columns)
    if layout is None:
        # One coder shows which layout has more structure; then all compete on that one.
        probe = next((name for name in ("mix", "range") if name in coders), coders[0])
        sizes = [len(_shrink_table(symbols_RC, (probe,), flip).payload) for flip in (False, True)]
        transposed = sizes[1] < sizes[0]
        stream = _shrink_table(symbols_RC, coders, transposed)
    else:
        transposed = layout.transposed
        # "raw" won where nothing helped; at another rate something may.
        known = coders if layout.coder == "raw" else (layout.coder,)
        stream = _shrink_table(symbols_RC, known, transposed)
    scale = shrink_scale(codes.scale.numpy().reshape(num_rows, -1), coders)
    return CodeStreams(Layout(stream.coder, transposed), stream, scale)


def expand_codes(streams: CodeStreams, like: Codes) -> Codes:
    """Restore the codes and scales of one tensor, of which `like` has all but the values.

    Raises ArtifactError if a stream is damaged, a code is off its grid or a scale is no number.
    """
    shape, scale_shape = tuple(like.codes.shape), tuple(like.scale.shape)
    num_rows, num_columns = rows_and_columns(shape)
    transposed = streams.layout.transposed
    width = num_rows if transposed else num_columns
    content = expand(streams.codes, num_rows * num_columns, num_columns=width)
    symbols = np.frombuffer(content, np.uint8).reshape(-1, width)
    if symbols.max() >= like.num_symbols:
        raise ArtifactError(f"a code lies outside its {like.bits}-bit grid")
    codes_RC = np.ascontiguousarray(symbols.T if transposed else symbols).view(np.int8)
    # Modulo 256 the difference is right, whichever way the byte is read.
    codes_RC = codes_RC - np.uint8(like.num_symbols // 2).view(np.int8)
    scale_RG = expand_scale(streams.scale, num_rows, math.prod(scale_shape) // num_rows)
    return replace(
        like,
        codes=torch.from_numpy(codes_RC).reshape(shape),
        scale=torch.from_numpy(scale_RG).reshape(scale_shape),
    )


def shrink_floats(tensors: Sequence[Tensor], coders: Sequence[str]) -> Stream:
    """Code float16 tensors one after another: all low bytes, then all high bytes."""
    flat = [tensor.to(torch.float16).numpy().reshape(-1) for tensor in tensors]
    return shrink(to_planes(np.concatenate(flat)) if flat else b"", coders)


def expand_floats(stream: Stream, shapes: Sequence[Shape]) -> list[Tensor]:
    """Restore float16 tensors; ArtifactError if a stream is damaged or a value is no number."""
    sizes = [math.prod(shape) for shape in shapes]
    values = from_planes(expand(stream, 2 * sum(sizes)))
    if not np.isfinite(values).all():
        raise ArtifactError("a float16 weight is NaN or infinite")
    pieces = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
    return [
        torch.from_numpy(piece.copy()).reshape(shape)
        for piece, shape in zip(pieces, shapes, strict=True)
    ]


def shrink_sparse(repair: Sparse, coders: Sequence[str]) -> tuple[Stream, Stream]:
    """Code corrections of single weights: the gaps between their places, and their values."""
    gaps_N = np.diff(repair.index.numpy(), prepend=-1) - 1
    planes = gaps_N.astype("<u4").view(np.uint8).reshape(-1, _GAP_BYTES).T
    return shrink(planes.tobytes(), coders), shrink_floats([repair.value], coders)


def expand_sparse(gaps: Stream, values: Stream, count: int, num_weights: int) -> Sparse:
    """Restore `count` corrections of single weights; ArtifactError if one lies outside."""
    content = expand(gaps, _GAP_BYTES * count)
    planes = np.frombuffer(content, np.uint8).reshape(_GAP_BYTES, -1)
    gaps_N = np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.int64)
    index_N = np.cumsum(gaps_N + 1) - 1
    if count and index_N[-1] >= num_weights:
        raise ArtifactError("a correction lies outside its tensor")
    return Sparse(torch.from_numpy(index_N), expand_floats(values, [(count,)])[0])


def _shrink_table(symbols_RC: NDArray[np.uint8], coders: Sequence[str], transposed: bool) -> Stream:
    table = symbols_RC.T if transposed else symbols_RC
    return shrink(table.tobytes(), coders, num_columns=table.shape[1])
