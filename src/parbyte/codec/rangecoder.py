"""Range coder and decoder behind one verb, so that one loop drives both directions.

`code` takes the frequencies of the lanes that are still open and returns their symbols: the encoder
knows them and writes bits, the decoder reads bits and learns them. All lanes share one stream.
Coding itself is constriction's (24-bit probabilities, 32-bit words).
Shapes: A open lanes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import BitstreamError
from parbyte.codec.freqs import Freqs

_WORD = np.dtype("<u4")


class Coder(ABC):
    """One direction of coding."""

    @abstractmethod
    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """Code the next symbol of each of these lanes and return them, int64[A]."""


class Encoder(Coder):
    """Knows the symbols, one array a lane, and turns them into bytes."""

    def __init__(self, known: Sequence[NDArray[np.uint16]]) -> None:
        self._known = [lane.astype(np.int64) for lane in known]
        self._position = 0
        self._coder = _stream().queue.RangeEncoder()
        self._family = _frequencies_family()

    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """See Coder."""
        symbols_A = np.array([self._known[lane][self._position] for lane in lanes_A])
        self._position += 1
        groups_A, members_A = np.divmod(symbols_A.astype(np.int32), np.int32(freqs.group_size))
        self._coder.encode(groups_A, self._family, freqs.groups_AG)
        self._coder.encode(members_A, self._family, freqs.members_of(groups_A))
        return symbols_A

    def to_bytes(self) -> bytes:
        """Return the bytes of everything coded so far."""
        return self._coder.get_compressed().astype(_WORD).tobytes()


class Decoder(Coder):
    """Turns an encoder's bytes into symbols."""

    def __init__(self, payload: bytes, vocab_size: int) -> None:
        if len(payload) % _WORD.itemsize:
            raise BitstreamError("the bitstream is damaged: a frame's bits end within a word")
        self._coder = _stream().queue.RangeDecoder(np.frombuffer(payload, _WORD).astype(np.uint32))
        self._vocab_size = vocab_size
        self._family = _frequencies_family()

    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """See Coder. Raises BitstreamError where no symbol fits the bits."""
        try:
            groups_A = self._coder.decode(self._family, freqs.groups_AG)
            members_A = self._coder.decode(self._family, freqs.members_of(groups_A))
        except AssertionError:  # how constriction reports bits that no symbol could have made
            raise BitstreamError("the bitstream does not fit the model: no such bits") from None
        symbols_A = groups_A.astype(np.int64) * freqs.group_size + members_A
        if symbols_A.max() >= self._vocab_size:
            raise BitstreamError("the bitstream does not fit the model: no such token")
        return symbols_A


def _stream() -> Any:
    # The compiled module declares its parts to Python, not to type checkers.
    return constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def _frequencies_family() -> Any:
    # perfect=False: whole numbers are taken as they are (see codec.freqs), not fitted again.
    return _stream().model.Categorical(perfect=False)
