"""Small compressed byte strings that an untrusted file may hold: `squeeze` and `expand`.

A blob is: method (1 byte), size of the plain bytes (4 bytes, little-endian), compressed bytes.
"""

import lzma
import struct

import brotli

from parbyte.base.errors import ArtifactError

MAX_PLAIN_BYTES = 32 * 2**20
_HEAD = struct.Struct("<BI")
_PLAIN, _BROTLI, _LZMA = range(3)
_LZMA_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0, "dict_size": 2**20}
]


def squeeze(plain: bytes) -> bytes:
    """Return the smallest of the plain, brotli and LZMA forms; the same bytes give the same blob.

    Raises ArtifactError over MAX_PLAIN_BYTES, which no reader would accept.
    """
    if len(plain) > MAX_PLAIN_BYTES:
        raise ArtifactError(
            f"a tokenizer of {len(plain):,} bytes is over the limit of {MAX_PLAIN_BYTES:,}; "
            "use a smaller vocabulary"
        )
    forms = [
        (_PLAIN, plain),
        (_BROTLI, brotli.compress(plain, quality=11, lgwin=22)),
        (_LZMA, lzma.compress(plain, format=lzma.FORMAT_RAW, filters=_LZMA_FILTERS)),
    ]
    method, body = min(forms, key=lambda form: len(form[1]))
    return _HEAD.pack(method, len(plain)) + body


def expand(blob: bytes) -> bytes:
    """Return the plain bytes of `squeeze`.

    Raises ArtifactError for a damaged blob; never holds more than MAX_PLAIN_BYTES of output.
    """
    if len(blob) < _HEAD.size:
        raise ArtifactError(f"the tokenizer's data is cut short: {len(blob)} bytes")
    method, num_bytes = _HEAD.unpack_from(blob)
    body = blob[_HEAD.size :]
    if num_bytes > MAX_PLAIN_BYTES:
        raise ArtifactError(
            f"the tokenizer's data claims {num_bytes:,} bytes, over the limit of "
            f"{MAX_PLAIN_BYTES:,}"
        )
    try:
        plain = _decompress(method, body, num_bytes)
    except (brotli.error, lzma.LZMAError, EOFError) as error:
        raise ArtifactError(f"the tokenizer's data is damaged: {error}") from None
    if plain is None or len(plain) != num_bytes:
        raise ArtifactError("the tokenizer's data is damaged: its size is not what it claims")
    return plain


def _decompress(method: int, body: bytes, num_bytes: int) -> bytes | None:
    """Return at most num_bytes + 1 bytes, or None if the stream does not end where the body does.

    One byte more than claimed: longer data shows as a wrong size instead of passing cut.
    """
    if method == _PLAIN:
        return body
    if method == _LZMA:
        lzma_reader = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
        plain = lzma_reader.decompress(body, max_length=num_bytes + 1)
        # The end mark is read only when there is room for more output.
        ends = lzma_reader.eof and not lzma_reader.unused_data
        return plain if ends else None
    if method == _BROTLI:
        reader = brotli.Decompressor()
        plain = reader.process(body, output_buffer_limit=num_bytes + 1)
        while not reader.is_finished() and len(plain) <= num_bytes:
            more = reader.process(b"", output_buffer_limit=num_bytes + 1 - len(plain))
            if not more:
                return None
            plain += more
        return plain
    raise ArtifactError(f"the tokenizer's data uses an unknown coder: {method}")
