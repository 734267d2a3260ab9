"""Scales as small whole numbers: the bits of a positive float16 grow with its logarithm.

    stream = how (1 byte), smallest value (2 bytes), coded numbers

how: the trailing zero bits that all scales share, plus 64 where each number is the difference from
its left neighbour (from the one above where there is none), modulo 256; or 255, and all bytes of
the float16 values in two planes where they differ by more than a byte. Shapes: R rows, G groups.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, expand, shrink

_HEADER_BYTES = 3
_DIFFERENCES = 64
_TWO_PLANES = 255


def shrink_scale(scale_RG: NDArray[np.float16], coders: Sequence[str]) -> Stream:
    """Code positive scales by the smallest of coders, as they are or as differences."""
    bits_RG = scale_RG.view(np.uint16)
    merged = int(np.bitwise_or.reduce(bits_RG, axis=None))
    shift = (merged & -merged).bit_length() - 1
    values_RG = bits_RG >> shift
    base, num_groups = int(values_RG.min()), scale_RG.shape[1]
    if int(values_RG.max()) - base >= 256:
        stream = shrink(to_planes(scale_RG), coders)
        return Stream(stream.coder, bytes([_TWO_PLANES, 0, 0]) + stream.payload)
    plain_RG = (values_RG - base).astype(np.uint8)
    streams = []
    for how, table_RG in ((shift, plain_RG), (shift + _DIFFERENCES, _differences(plain_RG))):
        stream = shrink(table_RG.tobytes(), coders, num_columns=num_groups)
        header = bytes([how]) + base.to_bytes(2, "little")
        streams.append(Stream(stream.coder, header + stream.payload))
    return min(streams, key=lambda stream: len(stream.payload))


def expand_scale(stream: Stream, num_rows: int, num_groups: int) -> NDArray[np.float16]:
    """Restore float16[R, G]; ArtifactError if they are damaged or no positive numbers."""
    header, body = stream.payload[:_HEADER_BYTES], stream.payload[_HEADER_BYTES:]
    if len(header) < _HEADER_BYTES:
        raise ArtifactError("damaged scales: shorter than their own header")
    how, base = header[0], int.from_bytes(header[1:], "little")
    coded, count = Stream(stream.coder, body), num_rows * num_groups
    if how == _TWO_PLANES:
        scale_RG = from_planes(expand(coded, 2 * count)).reshape(num_rows, num_groups)
    else:
        content = expand(coded, count, num_columns=num_groups)
        table_RG = np.frombuffer(content, np.uint8).reshape(num_rows, num_groups)
        if how >= _DIFFERENCES:
            table_RG, how = _sums(table_RG), how - _DIFFERENCES
        values_RG = table_RG.astype(np.int64) + base
        if how > 15 or int(values_RG.max()) << how > 0xFFFF:
            raise ArtifactError("damaged scales: a value exceeds 16 bits")
        scale_RG = (values_RG << how).astype(np.uint16).view(np.float16)
    if not (np.isfinite(scale_RG) & (scale_RG > 0)).all():
        raise ArtifactError("a scale is NaN, infinite or not positive")
    return scale_RG


def to_planes(values: NDArray[np.float16]) -> bytes:
    """Return the bytes of float16 values: all low ones, then all high ones."""
    return values.astype("<f2").view(np.uint8).reshape(-1, 2).T.tobytes()


def from_planes(content: bytes) -> NDArray[np.float16]:
    """Return the float16 values of two planes of bytes."""
    planes = np.frombuffer(content, np.uint8).reshape(2, -1)
    return np.ascontiguousarray(planes.T).view("<f2").reshape(-1).astype(np.float16)


def _differences(table_RG: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what each number differs by from its left neighbour, in column 0 from the one above.

    They lie around 128, where coders of numbers look for their centre.
    """
    before_RG = np.empty_like(table_RG)
    before_RG[:, 1:] = table_RG[:, :-1]
    before_RG[1:, 0], before_RG[0, 0] = table_RG[:-1, 0], 0
    return table_RG - before_RG + np.uint8(128)


def _sums(differences_RG: NDArray[np.uint8]) -> NDArray[np.uint8]:
    steps_RG = differences_RG - np.uint8(128)
    first_R = np.cumsum(steps_RG[:, 0], dtype=np.uint8)
    steps_RG[:, 0] = first_R
    return np.cumsum(steps_RG, axis=1, dtype=np.uint8)
