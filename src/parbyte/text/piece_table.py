"""The bytes of each id, and the two things done with them: joining and counting."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PieceTable:
    """Row i holds the bytes that code i stands for."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = np.empty(len(pieces), dtype=object)
        self._pieces[:] = pieces
        self._num_bytes = np.array([len(piece) for piece in pieces], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, code: int) -> bytes:
        return self._pieces[code]

    def join(self, codes: NDArray[np.integer]) -> bytes:
        """Return the pieces of the codes, one after the other."""
        return b"".join(self._pieces[codes].tolist())

    def count(self, codes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the number of bytes of each code."""
        return self._num_bytes[codes]
