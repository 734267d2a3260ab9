"""The coder "mix": a table of codes, each bit's odds mixed from what is known of its surroundings.

payload = centre (1 byte), mean distance from it in 1/256 (2 bytes), coded bits without end zeros
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.bit_coder import SPARE_BYTES
from parbyte.kernels.portable.code_mixer import code_table
from parbyte.kernels.portable.code_odds import SIZE_UNIT, gaussian_odds

Symbols = NDArray[np.uint8]

_HEADER_BYTES = 3
# A symbol is at most 16 bits, none dearer than 16. Pages that are never written take no memory.
_MOST_BYTES_PER_SYMBOL = 33


def encode_mixed(table_RC: Symbols) -> bytes:
    """Code a uint8[R, C] table that has at least one symbol."""
    centre = int(np.median(table_RC))
    numbers_RC = table_RC.astype(np.int16) - np.int16(centre)
    usual = max(1, min(65535, round(float(np.abs(numbers_RC).mean()) * SIZE_UNIT)))
    data = np.zeros(_MOST_BYTES_PER_SYMBOL * table_RC.size + SPARE_BYTES, np.uint8)
    num_bytes = code_table(numbers_RC, usual, _odds(), data, False)
    header = bytes([centre]) + usual.to_bytes(2, "little")
    return header + data[:num_bytes].tobytes().rstrip(b"\0")


def decode_mixed(payload: bytes, num_rows: int, num_columns: int) -> Symbols:
    """Restore the uint8[R, C] table; ValueError if the payload is no such table."""
    if len(payload) < _HEADER_BYTES:
        raise ValueError("shorter than its own header")
    centre, usual = payload[0], int.from_bytes(payload[1:_HEADER_BYTES], "little")
    if usual == 0:
        raise ValueError("impossible mean size")
    numbers_RC = np.zeros((num_rows, num_columns), np.int16)
    data = np.frombuffer(payload, np.uint8, offset=_HEADER_BYTES).copy()
    code_table(numbers_RC, usual, _odds(), data, True)
    numbers_RC += np.int16(centre)
    if numbers_RC.min() < 0 or numbers_RC.max() > 255:
        raise ValueError("a symbol is no byte")
    return numbers_RC.astype(np.uint8)


@cache
def _odds() -> NDArray[np.float32]:
    return gaussian_odds()
