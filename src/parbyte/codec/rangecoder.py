"""Range coder and decoder behind one verb, so that one loop drives both directions.

`code` takes the frequencies of the lanes that are still open and returns their symbols: the encoder
knows them and writes bits, the decoder reads bits and learns them. All lanes share one stream.
Coding itself is constriction's (24-bit probabilities, 32-bit words).
Shapes: A open lanes.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import BitstreamError
from parbyte.codec.freqs import Freqs

CHECK_TOKENS = 1 << 14
"""A check costs four bytes; between two of them lie at least so many tokens."""
_WORD = np.dtype("<u4")


class Coder(ABC):
    """One direction of coding.

    With checks it also sums up the frequencies that it coded with (CRC-32), and where a chunk ends
    and `check_tokens` have been coded since the last check, the sum is a check: where a decoder's
    model computes others than the encoder's, the place is known. 0: no checks.
    """

    def __init__(self, check_tokens: int) -> None:
        self._check_tokens = check_tokens
        self._crc = 0
        self._num_tokens = 0
        self._checked_tokens = 0

    @abstractmethod
    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """Code the next symbol of each of these lanes and return them, int64[A]."""

    def end_chunk(self) -> None:
        """Say that the predictor's chunk ends here.

        Raises BitstreamError if the encoder's frequencies were others than the decoder's.
        """
        num_unchecked = self._num_tokens - self._checked_tokens
        if self._check_tokens and num_unchecked >= self._check_tokens:
            self._check(self._crc)
            self._checked_tokens = self._num_tokens

    @abstractmethod
    def _check(self, crc: int) -> None:
        """Keep a sum, or compare it with the one that was kept."""

    def _note(self, groups_AG: NDArray[np.float32], members_AM: NDArray[np.float32]) -> None:
        self._num_tokens += len(groups_AG)
        if self._check_tokens:
            self._crc = zlib.crc32(members_AM.data, zlib.crc32(groups_AG.data, self._crc))


class Encoder(Coder):
    """Knows the symbols, one array a lane, and turns them into bytes."""

    def __init__(self, known: Sequence[NDArray[np.uint16]], *, check_tokens: int = 0) -> None:
        super().__init__(check_tokens)
        longest = max((len(lane) for lane in known), default=0)
        self._known_BT = np.zeros((len(known), longest), np.uint16)
        for row_T, lane in zip(self._known_BT, known, strict=True):
            row_T[: len(lane)] = lane
        self._position_B = np.zeros(len(known), np.int64)
        self._coder = _stream().queue.RangeEncoder()
        self._family = _frequencies_family()
        self._checks: list[int] = []

    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """See Coder."""
        symbols_A = self._known_BT[lanes_A, self._position_B[lanes_A]].astype(np.int64)
        self._position_B[lanes_A] += 1
        groups_A, members_A = np.divmod(symbols_A.astype(np.int32), np.int32(freqs.group_size))
        members_AM = freqs.members_of(groups_A)
        self._coder.encode(groups_A, self._family, freqs.groups_AG)
        self._coder.encode(members_A, self._family, members_AM)
        self._note(freqs.groups_AG, members_AM)
        return symbols_A

    def _check(self, crc: int) -> None:
        self._checks.append(crc)

    @property
    def checks(self) -> tuple[int, ...]:
        """The sums, each over everything before it."""
        return tuple(self._checks)

    def to_bytes(self) -> bytes:
        """Return the bytes of everything coded so far."""
        return self._coder.get_compressed().astype(_WORD).tobytes()


class Decoder(Coder):
    """Turns an encoder's bytes into symbols; checks are the encoder's, None if it had none."""

    def __init__(
        self,
        payload: bytes,
        vocab_size: int,
        *,
        checks: tuple[int, ...] | None = None,
        check_tokens: int = CHECK_TOKENS,
    ) -> None:
        super().__init__(0 if checks is None else check_tokens)
        if len(payload) % _WORD.itemsize:
            raise BitstreamError("the bitstream is damaged: a frame's bits end within a word")
        self._coder = _stream().queue.RangeDecoder(np.frombuffer(payload, _WORD).astype(np.uint32))
        self._vocab_size = vocab_size
        self._family = _frequencies_family()
        self._checks = iter(checks or ())

    def code(self, freqs: Freqs, lanes_A: NDArray[np.intp]) -> NDArray[np.int64]:
        """See Coder. Raises BitstreamError where no symbol fits the bits."""
        try:
            groups_A = self._coder.decode(self._family, freqs.groups_AG)
            members_AM = freqs.members_of(groups_A)
            members_A = self._coder.decode(self._family, members_AM)
        except AssertionError:  # how constriction reports bits that no symbol could have made
            raise BitstreamError(self._misfit("no such bits")) from None
        self._note(freqs.groups_AG, members_AM)
        symbols_A = groups_A.astype(np.int64) * freqs.group_size + members_A
        if symbols_A.max() >= self._vocab_size:
            raise BitstreamError(self._misfit("no such token"))
        return symbols_A

    def _check(self, crc: int) -> None:
        if next(self._checks, None) != crc:
            raise BitstreamError(self._misfit("other probabilities than the encoder's"))

    def _misfit(self, what: str) -> str:
        where = f" among the tokens from {self._checked_tokens:,} to {self._num_tokens:,}"
        return f"the bitstream does not fit the model: {what}{where if self._check_tokens else ''}"


def _stream() -> Any:
    # The compiled module declares its parts to Python, not to type checkers.
    return constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def _frequencies_family() -> Any:
    # perfect=False: whole numbers are taken as they are (see codec.freqs), not fitted again.
    return _stream().model.Categorical(perfect=False)
