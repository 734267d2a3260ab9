"""Choose words, word parts and separators: all compete for the same ids.

All frequent substrings start as candidates, and those that save the fewest ids over the counted
text are struck out, round by round, until the rest fits.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from parbyte.text.word_spelling import shortest_spelling
from parbyte.text.word_vocabulary import LETTERS

_MAX_PART_BYTES = 12
_CANDIDATES_PER_ID = 3
_STRUCK_PER_ROUND = 0.3
_MIN_COUNT = 2
_LETTER = re.compile(rb"[%b]" % LETTERS)
_WORDS, _TAILS, _SEPARATORS = "words", "tails", "separators"
_Piece = tuple[bytes, str]


@dataclass(frozen=True)
class PieceSets:
    """The three kinds of pieces, as in `word_vocabulary`, in no order."""

    words: set[bytes]
    tails: set[bytes]
    separators: set[bytes]


def select_pieces(
    words: Mapping[bytes, int],
    separators: Mapping[bytes, int],
    singles: Iterable[bytes],
    num_ids: int,
) -> PieceSets:
    """Return the single bytes and num_ids pieces more (fewer if the text is short).

    words, separators: how often each occurs. singles: bytes that are tails or separators anyway.
    """
    pieces = PieceSets(set(), set(), set())
    for piece, kind in _candidates(words, separators, _CANDIDATES_PER_ID * num_ids):
        getattr(pieces, kind).add(piece)
    pieces.words.update(word for word, count in words.items() if count > _MIN_COUNT)
    for byte in singles:
        (pieces.tails if _LETTER.match(byte) else pieces.separators).add(byte)
    num_singles = len(set(singles))
    runs = {**words, **separators}
    while (excess := _size(pieces) - num_singles - num_ids) > 0:
        _strike_out_(pieces, runs, excess)
    return pieces


def _candidates(
    words: Mapping[bytes, int], separators: Mapping[bytes, int], size: int
) -> list[_Piece]:
    """Return the parts that cover most bytes."""
    counts: Counter[_Piece] = Counter()
    for word, count in words.items():
        for end in {*range(1, min(len(word), _MAX_PART_BYTES) + 1), len(word)}:
            counts[word[:end], _WORDS] += count
        for part in _parts(word[1:]):
            counts[part, _TAILS] += count
    for separator, count in separators.items():
        for part in _parts(separator):
            counts[part, _SEPARATORS] += count
    covered = {
        piece: count * max(1, len(piece[0]) - 1)
        for piece, count in counts.items()
        if count >= _MIN_COUNT
    }
    return sorted(covered, key=lambda piece: (-covered[piece], piece))[:size]


def _parts(run: bytes) -> Iterator[bytes]:
    for start in range(len(run)):
        for end in range(start + 2, min(len(run), start + _MAX_PART_BYTES) + 1):
            yield run[start:end]


def _strike_out_(pieces: PieceSets, runs: Mapping[bytes, int], excess: int) -> None:
    """Remove the pieces that save least, at most `excess` and a share of all; singles stay."""
    saved = _savings(pieces, runs)
    at_once = max(1, int(_STRUCK_PER_ROUND * len(saved)))
    for piece, kind in sorted(saved, key=lambda key: (saved[key], key))[: min(excess, at_once)]:
        getattr(pieces, kind).remove(piece)


def _savings(pieces: PieceSets, runs: Mapping[bytes, int]) -> dict[_Piece, int]:
    """Return how many ids more the runs would take without each piece."""
    uses = _uses(pieces, runs)
    saved: dict[_Piece, int] = {}
    for kind in (_WORDS, _TAILS, _SEPARATORS):
        own: set[bytes] = getattr(pieces, kind)
        rest = pieces.tails if kind == _WORDS else own
        for piece in [piece for piece in own if kind == _WORDS or len(piece) > 1]:
            own.remove(piece)
            cost = shortest_spelling(piece, own, rest)[1]
            own.add(piece)
            saved[piece, kind] = uses[piece, kind] * (cost - 1)
    return saved


def _uses(pieces: PieceSets, runs: Mapping[bytes, int]) -> Counter[_Piece]:
    uses: Counter[_Piece] = Counter()
    for run, count in runs.items():
        is_word = _LETTER.match(run) is not None
        starts = pieces.words if is_word else pieces.separators
        rest = pieces.tails if is_word else pieces.separators
        first, *others = [run] if run in starts else shortest_spelling(run, starts, rest)[0]
        kind = _TAILS if is_word else _SEPARATORS
        uses[first, _WORDS if is_word and first in starts else kind] += count
        for piece in others:
            uses[piece, kind] += count
    return uses


def _size(pieces: PieceSets) -> int:
    return len(pieces.words) + len(pieces.tails) + len(pieces.separators)
