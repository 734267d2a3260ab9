"""The vocabulary of the `words` tokenizer: three lists of byte strings, and their blob.

    id 0                BOS
    then 16 nibbles     only if some byte value has no piece of its own: two of them spell a byte
    then separators     runs of bytes that are neither ASCII letters nor >= 128
    then tails          runs of the other bytes, joined to what stands before them
    then words          the same, but after a word or a tail a single space is implied

Each list is sorted, so that it can be stored as differences to its neighbour.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from parbyte.base.errors import ArtifactError
from parbyte.text.blob import expand, squeeze

MAX_PIECE_BYTES = 31
NUM_NIBBLES = 16
LETTERS = rb"A-Za-z\x80-\xff"
RUNS = re.compile(rb"[%b]+|[^%b]+" % (LETTERS, LETTERS))
_WORD = re.compile(rb"[%b]+" % LETTERS)
_SEPARATOR = re.compile(rb"[^%b]+" % LETTERS)
_SECTIONS = ("separators", "tails", "words")


@dataclass(frozen=True)
class WordVocabulary:
    """Sorted, distinct pieces of 1..31 bytes; b" " is always among the separators."""

    separators: tuple[bytes, ...]
    tails: tuple[bytes, ...]
    words: tuple[bytes, ...]

    @cached_property
    def num_nibbles(self) -> int:
        """Count the nibble ids: none if every byte value is a separator or a tail by itself."""
        single = {piece for piece in self.separators + self.tails if len(piece) == 1}
        return 0 if len(single) == 256 else NUM_NIBBLES

    @property
    def size(self) -> int:
        """Count all ids."""
        return 1 + self.num_nibbles + len(self.separators) + len(self.tails) + len(self.words)


def is_word(run: bytes) -> bool:
    """Tell a word from a separator by its first byte."""
    return _WORD.match(run) is not None


def make_vocabulary(
    separators: Iterable[bytes], tails: Iterable[bytes], words: Iterable[bytes]
) -> WordVocabulary:
    """Sort the three lists and make sure of the single space."""
    return WordVocabulary(
        separators=tuple(sorted({b" ", *separators})),
        tails=tuple(sorted(set(tails))),
        words=tuple(sorted(set(words))),
    )


def vocabulary_to_blob(vocabulary: WordVocabulary) -> bytes:
    """Store the lists: three counts of 2 bytes, then each piece as its difference to the last."""
    lists = [getattr(vocabulary, name) for name in _SECTIONS]
    counts = b"".join(len(pieces).to_bytes(2, "little") for pieces in lists)
    separators = b"".join(bytes([len(piece)]) + piece for piece in vocabulary.separators)
    return squeeze(counts + separators + b"".join(_to_differences(p) for p in lists[1:]))


def vocabulary_from_blob(blob: bytes) -> WordVocabulary:
    """Read and check the lists; ArtifactError if they could not come from `vocabulary_to_blob`."""
    plain = expand(blob)
    if len(plain) < 6:
        raise ArtifactError("the tokenizer's word list is cut short")
    counts = [int.from_bytes(plain[i : i + 2], "little") for i in (0, 2, 4)]
    separators, position = _read_separators(plain, 6, counts[0])
    differences = _DIFFERENCE.findall(plain, position)
    if b"".join(differences) != plain[position:] or len(differences) != counts[1] + counts[2]:
        raise ArtifactError("the tokenizer's word list is damaged: its pieces do not add up")
    vocabulary = WordVocabulary(
        separators=tuple(separators),
        tails=tuple(_from_differences(differences[: counts[1]])),
        words=tuple(_from_differences(differences[counts[1] :])),
    )
    _check(vocabulary)
    return vocabulary


# A control byte below 32 counts the bytes shared with the piece before; letters follow it.
_DIFFERENCE = re.compile(rb"[\x00-\x1e][%b]+" % LETTERS)


def _to_differences(pieces: Sequence[bytes]) -> bytes:
    stored = bytearray()
    before = b""
    for piece in pieces:
        shared = 0
        while shared < min(len(before), len(piece) - 1) and before[shared] == piece[shared]:
            shared += 1
        stored.append(shared)
        stored += piece[shared:]
        before = piece
    return bytes(stored)


def _from_differences(differences: Sequence[bytes]) -> list[bytes]:
    pieces: list[bytes] = []
    before = b""
    for difference in differences:
        before = before[: difference[0]] + difference[1:]
        if len(before) > MAX_PIECE_BYTES:
            raise ArtifactError("the tokenizer's word list is damaged: a piece is too long")
        pieces.append(before)
    return pieces


def _read_separators(plain: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    pieces: list[bytes] = []
    for _ in range(count):
        if position >= len(plain):
            raise ArtifactError("the tokenizer's word list is cut short")
        end = position + 1 + plain[position]
        pieces.append(plain[position + 1 : end])
        position = end
    return pieces, position


def _check(vocabulary: WordVocabulary) -> None:
    for name in _SECTIONS:
        pieces: tuple[bytes, ...] = getattr(vocabulary, name)
        shape = _SEPARATOR if name == "separators" else _WORD
        is_sorted = all(a < b for a, b in pairwise(pieces))
        is_well_formed = all(
            len(piece) <= MAX_PIECE_BYTES and shape.fullmatch(piece) for piece in pieces
        )
        if not (is_sorted and is_well_formed):
            raise ArtifactError(f"the tokenizer's word list is damaged: bad {name}")
    if b" " not in vocabulary.separators:
        raise ArtifactError("the tokenizer's word list is damaged: the space is missing")
    if vocabulary.size > 65_536:
        raise ArtifactError(f"the tokenizer's word list is too long: {vocabulary.size:,} ids")
