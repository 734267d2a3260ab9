"""Choose words, word parts and separators: all compete for the same ids.

Twice as many pieces as wanted are grown by merging; then those that save the fewest ids over the
counted text are struck out, round by round, until the rest fits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from parbyte.text.word_merging import Kind, Piece, merge_pieces
from parbyte.text.word_spelling import shortest_spelling
from parbyte.text.word_vocabulary import is_word

_GROWN_PER_ID = 2
_STRUCK_PER_ROUND = 0.15

PieceSets = dict[Kind, set[bytes]]


def select_pieces(runs: Mapping[bytes, int], singles: Iterable[bytes], num_ids: int) -> PieceSets:
    """Return the single bytes and num_ids pieces more (fewer if the text is short).

    runs: how often each word and separator occurs. singles: bytes that are tails or separators
    whatever they save.
    """
    pieces: PieceSets = {kind: set() for kind in Kind}
    for byte in singles:
        pieces[Kind.TAIL if is_word(byte) else Kind.SEPARATOR].add(byte)
    wanted = _size(pieces) + num_ids
    for text, kind in merge_pieces(runs, _GROWN_PER_ID * num_ids):
        pieces[kind].add(text)
    while (excess := _size(pieces) - wanted) > 0:
        _strike_out_(pieces, runs, excess)
    return pieces


def _strike_out_(pieces: PieceSets, runs: Mapping[bytes, int], excess: int) -> None:
    """Remove the pieces that save least, at most `excess` and a share of all; singles stay."""
    saved = _savings(pieces, runs)
    at_once = max(1, int(_STRUCK_PER_ROUND * len(saved)))
    for text, kind in sorted(saved, key=lambda key: (saved[key], key))[: min(excess, at_once)]:
        pieces[kind].remove(text)


def _savings(pieces: PieceSets, runs: Mapping[bytes, int]) -> dict[Piece, int]:
    """Return how many ids more the runs would take without each piece."""
    uses = _uses(pieces, runs)
    saved: dict[Piece, int] = {}
    for kind, own in pieces.items():
        rest = pieces[Kind.TAIL] if kind is Kind.WORD else own
        for text in [text for text in own if kind is Kind.WORD or len(text) > 1]:
            own.remove(text)
            cost = shortest_spelling(text, own, rest)[1]
            own.add(text)
            saved[Piece(text, kind)] = uses[Piece(text, kind)] * (cost - 1)
    return saved


def _uses(pieces: PieceSets, runs: Mapping[bytes, int]) -> Counter[Piece]:
    uses: Counter[Piece] = Counter()
    for run, count in runs.items():
        first, rest = Kind.SEPARATOR, Kind.SEPARATOR
        if is_word(run):
            first, rest = Kind.WORD, Kind.TAIL
        starts, tails = pieces[first], pieces[rest]
        head, *others = [run] if run in starts else shortest_spelling(run, starts, tails)[0]
        uses[Piece(head, first if head in starts else rest)] += count
        for text in others:
            uses[Piece(text, rest)] += count
    return uses


def _size(pieces: PieceSets) -> int:
    return sum(map(len, pieces.values()))
