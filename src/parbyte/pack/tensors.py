"""Quantised tensors to streams and back: layout of codes, scales and float16 values.

Shapes: R rows, C columns; leading dimensions of a stack count as rows, a vector is one row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, expand, shrink
from parbyte.quant.grid import Codes, max_code

Shape = tuple[int, ...]
_SCALE_HEADER_BYTES = 3
_TWO_PLANES = 255


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
    symbols_RC = (codes.codes.numpy() + max_code(codes.bits)).astype(np.uint8)
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
    scale = _shrink_scale(codes.scale.numpy().reshape(-1), coders)
    return CodeStreams(Layout(stream.coder, transposed), stream, scale)


def expand_codes(streams: CodeStreams, shape: Shape, bits: int) -> Codes:
    """Restore one tensor's codes and scales.

    Raises ArtifactError if a stream is damaged, a code is off its grid or a scale is no number.
    """
    num_rows, num_columns = rows_and_columns(shape)
    transposed = streams.layout.transposed
    width = num_rows if transposed else num_columns
    content = expand(streams.codes, num_rows * num_columns, num_columns=width)
    symbols = np.frombuffer(content, np.uint8).reshape(-1, width)
    limit = max_code(bits)
    if symbols.max() > 2 * limit:
        raise ArtifactError(f"a code lies outside its {bits}-bit grid")
    codes_RC = np.ascontiguousarray(symbols.T if transposed else symbols).view(np.int8)
    codes_RC = torch.from_numpy(codes_RC - np.int8(limit)).reshape(shape)
    scale_R = torch.from_numpy(_expand_scale(streams.scale, num_rows)).reshape(shape[:-1])
    return Codes(codes_RC, scale_R, bits)


def shrink_floats(tensors: Sequence[Tensor], coders: Sequence[str]) -> Stream:
    """Code float16 tensors one after another: all low bytes, then all high bytes."""
    flat = [tensor.to(torch.float16).numpy().reshape(-1) for tensor in tensors]
    return shrink(_to_planes(np.concatenate(flat)) if flat else b"", coders)


def expand_floats(stream: Stream, shapes: Sequence[Shape]) -> list[Tensor]:
    """Restore float16 tensors; ArtifactError if a stream is damaged or a value is no number."""
    sizes = [math.prod(shape) for shape in shapes]
    values = _from_planes(expand(stream, 2 * sum(sizes)))
    if not np.isfinite(values).all():
        raise ArtifactError("a float16 weight is NaN or infinite")
    pieces = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
    return [
        torch.from_numpy(piece.copy()).reshape(shape)
        for piece, shape in zip(pieces, shapes, strict=True)
    ]


def _shrink_table(symbols_RC: NDArray[np.uint8], coders: Sequence[str], transposed: bool) -> Stream:
    table = symbols_RC.T if transposed else symbols_RC
    return shrink(table.tobytes(), coders, num_columns=table.shape[1])


def _shrink_scale(scale_R: NDArray[np.float16], coders: Sequence[str]) -> Stream:
    """Code scales as small whole numbers: a positive float16's bits grow with its logarithm.

    payload = trailing zero bits that all share (1 byte), smallest value (2 bytes), differences;
    or 255, 0, 0 and all bytes in two planes where a difference exceeds a byte.
    """
    bits_R = scale_R.view(np.uint16)
    merged = int(np.bitwise_or.reduce(bits_R))
    shift = (merged & -merged).bit_length() - 1
    values_R = bits_R >> shift
    base = int(values_R.min())
    if int(values_R.max()) - base < 256:
        header = bytes([shift]) + base.to_bytes(2, "little")
        content = (values_R - base).astype(np.uint8).tobytes()
    else:
        header, content = bytes([_TWO_PLANES, 0, 0]), _to_planes(scale_R)
    stream = shrink(content, coders)
    return Stream(stream.coder, header + stream.payload)


def _expand_scale(stream: Stream, num_rows: int) -> NDArray[np.float16]:
    header, body = stream.payload[:_SCALE_HEADER_BYTES], stream.payload[_SCALE_HEADER_BYTES:]
    if len(header) < _SCALE_HEADER_BYTES:
        raise ArtifactError("damaged scales: shorter than their own header")
    shift, base = header[0], int.from_bytes(header[1:], "little")
    if shift == _TWO_PLANES:
        scale_R = _from_planes(expand(Stream(stream.coder, body), 2 * num_rows))
    else:
        content = expand(Stream(stream.coder, body), num_rows)
        values_R = np.frombuffer(content, np.uint8).astype(np.int64) + base
        if shift > 15 or int(values_R.max()) << shift > 0xFFFF:
            raise ArtifactError("damaged scales: a value exceeds 16 bits")
        scale_R = (values_R << shift).astype(np.uint16).view(np.float16)
    if not (np.isfinite(scale_R) & (scale_R > 0)).all():
        raise ArtifactError("a scale is NaN, infinite or not positive")
    return scale_R


def _to_planes(values: NDArray[np.float16]) -> bytes:
    return values.astype("<f2").view(np.uint8).reshape(-1, 2).T.tobytes()


def _from_planes(content: bytes) -> NDArray[np.float16]:
    planes = np.frombuffer(content, np.uint8).reshape(2, -1)
    return np.ascontiguousarray(planes.T).view("<f2").reshape(-1).astype(np.float16)
