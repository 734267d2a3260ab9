"""Grow pieces by merging the most frequent neighbours inside words and inside separators.

A piece has a kind: what begins a word stays apart from what continues one, even with equal bytes.
Source: byte-pair encoding of Sennrich et al. 2016, arXiv:1508.07909.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from parbyte.text.word_vocabulary import is_word

_MIN_COUNT = 2


class Kind(StrEnum):
    """The list of the vocabulary that a piece belongs to."""

    WORD = "words"
    TAIL = "tails"
    SEPARATOR = "separators"


class Piece(NamedTuple):
    """Bytes with their kind."""

    text: bytes
    kind: Kind


_Pair = tuple[Piece, Piece]


def merge_pieces(runs: Mapping[bytes, int], size: int) -> list[Piece]:
    """Return about `size` pieces: the first letters of words, then merges, most frequent first.

    runs: how often each word or separator occurs. Ties are broken by the bytes.
    """
    merger = _Merger(runs)
    pieces = dict.fromkeys(split[0] for split in merger.splits if split[0].kind is Kind.WORD)
    while len(pieces) < size:
        pair = merger.pop_most_frequent_()
        if pair is None:
            break
        pieces[merger.merge_(pair)] = None
    return list(pieces)


class _Merger:
    """The runs as split so far, with how often and where each pair of neighbours stands."""

    def __init__(self, runs: Mapping[bytes, int]) -> None:
        ordered = sorted(runs)
        self.splits = [_split(run) for run in ordered]
        self._counts = [runs[run] for run in ordered]
        self._pair_counts: Counter[_Pair] = Counter()
        self._places: defaultdict[_Pair, set[int]] = defaultdict(set)
        for place, split in enumerate(self.splits):
            self._count_(place, split)
        self._queue = [(-count, pair) for pair, count in self._pair_counts.items()]
        heapq.heapify(self._queue)

    def pop_most_frequent_(self) -> _Pair | None:
        """Return the next pair to merge, or None if none occurs often enough."""
        while self._queue:
            stale, pair = heapq.heappop(self._queue)
            count = self._pair_counts[pair]
            if count < _MIN_COUNT:
                continue
            if -stale == count:
                return pair
            heapq.heappush(self._queue, (-count, pair))
        return None

    def merge_(self, pair: _Pair) -> Piece:
        """Join a pair wherever it stands and return the new piece."""
        merged = Piece(pair[0].text + pair[1].text, pair[0].kind)
        changed: set[_Pair] = set()
        for place in self._places.pop(pair):
            split = self.splits[place]
            for neighbours in pairwise(split):
                self._pair_counts[neighbours] -= self._counts[place]
            split = self.splits[place] = _join(split, pair, merged)
            changed |= self._count_(place, split)
        for neighbours in changed:
            if merged in neighbours:
                heapq.heappush(self._queue, (-self._pair_counts[neighbours], neighbours))
        return merged

    def _count_(self, place: int, split: list[Piece]) -> set[_Pair]:
        pairs = list(pairwise(split))
        for pair in pairs:
            self._pair_counts[pair] += self._counts[place]
            self._places[pair].add(place)
        return set(pairs)


def _split(run: bytes) -> list[Piece]:
    first, rest = Kind.SEPARATOR, Kind.SEPARATOR
    if is_word(run):
        first, rest = Kind.WORD, Kind.TAIL
    kinds = [first] + [rest] * (len(run) - 1)
    return [Piece(run[i : i + 1], kind) for i, kind in enumerate(kinds)]


def _join(split: list[Piece], pair: _Pair, merged: Piece) -> list[Piece]:
    joined: list[Piece] = []
    for piece in split:
        if joined and piece == pair[1] and joined[-1] == pair[0]:
            joined[-1] = merged
        else:
            joined.append(piece)
    return joined
