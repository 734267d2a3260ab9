"""Bytes to fewer bytes by the best of several coders, and back under a bound.

Each stream remembers its coder's name and nothing else: the length of the original is known from
elsewhere (the shape of a tensor, the header), so headers and end marks are left out.
"""

import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import brotli
import numpy as np
import zstandard

from parbyte.base.errors import ArtifactError
from parbyte.pack.mixing_coder import decode_mixed, encode_mixed
from parbyte.pack.range_coder import class_bits_to_try, decode_table, encode_table

_LZMA_PROPERTIES = ((0, 0, 0), (3, 0, 0))  # lc, lp, pb: best for codes, best for text
_SMALLEST_WINDOW = 4096
_LARGEST_WINDOW = 2**26


@dataclass(frozen=True)
class Stream:
    """Coded bytes with the name of their coder."""

    coder: str
    payload: bytes


def shrink(content: bytes, coders: Sequence[str], *, num_columns: int = 1) -> Stream:
    """Return the smallest stream that any of the coders (or none, "raw") makes of `content`.

    num_columns: width of the table that `content` is, row by row; "mix" and "range" use it.
    """
    streams = [Stream("raw", content)]
    if content:
        streams += [Stream(name, _ENCODERS[name](content, num_columns)) for name in coders]
    return min(streams, key=lambda stream: len(stream.payload))


def expand(stream: Stream, num_bytes: int, *, num_columns: int = 1) -> bytes:
    """Restore exactly `num_bytes` bytes; never allocates much more than them.

    Raises ArtifactError for an unknown coder, damaged content or any other length.
    """
    decode = _DECODERS.get(stream.coder)
    if decode is None:
        raise ArtifactError(f"unknown coder '{stream.coder[:20]}'")
    content = decode(stream.payload, num_bytes, num_columns)
    if len(content) != num_bytes:
        got = "more" if len(content) > num_bytes else f"{len(content):,}"
        raise ArtifactError(
            f"a '{stream.coder}' stream holds {got} where {num_bytes:,} bytes are declared"
        )
    return content


def _encode_range(content: bytes, num_columns: int) -> bytes:
    table_RC = np.frombuffer(content, np.uint8).reshape(-1, num_columns)
    tries = [encode_table(table_RC, bits) for bits in class_bits_to_try(num_columns)]
    return min(tries, key=len)


def _decode_range(payload: bytes, num_bytes: int, num_columns: int) -> bytes:
    try:
        return decode_table(payload, num_bytes // num_columns, num_columns).tobytes()
    except ValueError as error:
        raise ArtifactError(f"damaged 'range' stream: {error}") from None


def _encode_mix(content: bytes, num_columns: int) -> bytes:
    return encode_mixed(np.frombuffer(content, np.uint8).reshape(-1, num_columns))


def _decode_mix(payload: bytes, num_bytes: int, num_columns: int) -> bytes:
    try:
        return decode_mixed(payload, num_bytes // num_columns, num_columns).tobytes()
    except ValueError as error:
        raise ArtifactError(f"damaged 'mix' stream: {error}") from None


def _encode_zstd(content: bytes, num_columns: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        22,
        source_size=len(content),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)


def _decode_zstd(payload: bytes, num_bytes: int, num_columns: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(
        max_window_size=_window(num_bytes), format=zstandard.FORMAT_ZSTD1_MAGICLESS
    )
    try:
        with decompressor.stream_reader(payload) as reader:
            return _read_at_most(reader.read, num_bytes)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"damaged 'zstd' stream: {error}") from None


def _encode_lzma(content: bytes, num_columns: int) -> bytes:
    """Code with the best of a few property bytes, which is kept in front as in an .lzma file."""
    tries = []
    for lc, lp, pb in _LZMA_PROPERTIES:
        filters = _lzma_filters(lc, lp, pb, len(content))
        body = lzma.compress(content, format=lzma.FORMAT_RAW, filters=filters)
        tries.append(bytes([(pb * 5 + lp) * 9 + lc]) + body)
    return min(tries, key=len)


def _decode_lzma(payload: bytes, num_bytes: int, num_columns: int) -> bytes:
    properties = payload[0] if payload else 255
    pb, rest = divmod(properties, 45)
    lp, lc = divmod(rest, 9)
    if pb > 4 or lp + lc > 4:
        raise ArtifactError("damaged 'lzma' stream: impossible properties")
    filters = _lzma_filters(lc, lp, pb, num_bytes)
    try:
        decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        return decompressor.decompress(payload[1:], max_length=num_bytes + 1)
    except lzma.LZMAError as error:
        raise ArtifactError(f"damaged 'lzma' stream: {error}") from None


def _encode_brotli(content: bytes, num_columns: int) -> bytes:
    return brotli.compress(content, quality=11, lgwin=24)


def _decode_brotli(payload: bytes, num_bytes: int, num_columns: int) -> bytes:
    decompressor = brotli.Decompressor()
    pending = payload

    def read(limit: int) -> bytes:
        nonlocal pending
        piece = decompressor.process(pending, output_buffer_limit=limit)
        pending = b""
        return piece

    try:
        return _read_at_most(read, num_bytes)
    except brotli.error as error:
        raise ArtifactError(f"damaged 'brotli' stream: {error}") from None


def _read_at_most(read: Callable[[int], bytes], num_bytes: int) -> bytes:
    """Read until the end or until there is more than `num_bytes`."""
    pieces, length = [], 0
    while length <= num_bytes and (piece := read(num_bytes + 1 - length)):
        pieces.append(piece)
        length += len(piece)
    return b"".join(pieces)


def _lzma_filters(lc: int, lp: int, pb: int, num_bytes: int) -> list[dict[str, int]]:
    return [
        {
            "id": lzma.FILTER_LZMA1,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": _window(num_bytes),
            "lc": lc,
            "lp": lp,
            "pb": pb,
        }
    ]


def _window(num_bytes: int) -> int:
    """Return the power of two that holds `num_bytes`, within reason."""
    return min(max(_SMALLEST_WINDOW, 1 << (num_bytes - 1).bit_length()), _LARGEST_WINDOW)


_Encoder = Callable[[bytes, int], bytes]
_Decoder = Callable[[bytes, int, int], bytes]
_ENCODERS: dict[str, _Encoder] = {
    "mix": _encode_mix,
    "range": _encode_range,
    "zstd": _encode_zstd,
    "lzma": _encode_lzma,
    "brotli": _encode_brotli,
}
_DECODERS: dict[str, _Decoder] = {
    "raw": lambda payload, num_bytes, num_columns: payload,
    "mix": _decode_mix,
    "range": _decode_range,
    "zstd": _decode_zstd,
    "lzma": _decode_lzma,
    "brotli": _decode_brotli,
}
