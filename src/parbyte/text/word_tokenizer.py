"""Frequent words and separators as tokens, with the single space between words implied.

A word is a maximal run of ASCII letters and bytes >= 128, a separator a maximal run of the rest.
The law of decoding: the pieces of the ids are joined, and one space is put before a *word* id whose
predecessor ends in a letter (a word, a tail, or a spelled letter). Nothing else is ever added:

    In the beginning      words In, the, beginning      no id for the spaces
    smiteth               word smite, tail th           an unknown word: a word and tails
    [was]                 separator "[", word was, separator "]"
    a  b                  word a, separator "  ", word b

Two nibbles in a row, not part of an earlier pair, spell one byte, joined as it stands; a nibble
alone adds nothing. So any sequence of ids decodes. Where a word cannot begin with a word id, the
encoder writes the space before it as an id. See `word_vocabulary` for the ids.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from parbyte.text.piece_table import PieceTable
from parbyte.text.tokenizer import Flags, Ids, Tokenizer, check_ids, printable
from parbyte.text.word_spelling import shortest_spelling
from parbyte.text.word_vocabulary import (
    LETTERS,
    RUNS,
    WordVocabulary,
    is_word,
    vocabulary_from_blob,
    vocabulary_to_blob,
)

# A long document is cut where it changes no id: before an implied space or after another separator.
# A long separator is also cut inside, with no part of it left a lone space; it may have other ids.
_CUT = re.compile(
    rb"[%b](?= [%b])|(?:[^%b]{2}|[^ %b])(?=[%b])|[^%b]{2}(?=[^%b]{2})" % ((LETTERS,) * 7)
)
_BLOCK_BYTES = 2**20
_CACHE_ENTRIES = 2**18
_STRETCH_BYTES = 64
_EXPLICIT_SPACE = b""


class WordTokenizer(Tokenizer):
    """Words, tails, separators and nibbles; every byte string round-trips."""

    kind = "words"
    bos_id = 0
    is_lossless = True

    def __init__(self, vocabulary: WordVocabulary) -> None:
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self._first_nibble = 1
        after = 1 + vocabulary.num_nibbles
        self._separator_ids = _numbered(vocabulary.separators, after)
        after += len(vocabulary.separators)
        self._tail_ids = _numbered(vocabulary.tails, after)
        after += len(vocabulary.tails)
        self._first_word = after
        self._word_ids = _numbered(vocabulary.words, after)
        # Codes: the ids, then one for each byte that a pair of nibbles spells, then all of these
        # once more with the implied space before them.
        empty = [b""] * (1 + vocabulary.num_nibbles)
        pieces = [*empty, *vocabulary.separators, *vocabulary.tails, *vocabulary.words]
        pieces += [bytes([value]) for value in range(256)]
        self._ends_word = np.array([is_word(piece[-1:]) for piece in pieces])
        self._num_codes = len(pieces)
        self._table = PieceTable(pieces + [b" " + piece for piece in pieces])
        self._cache: dict[bytes, tuple[int, ...]] = {}
        self._clear_cache_()

    @classmethod
    def from_blob(cls, blob: bytes) -> "WordTokenizer":
        """Rebuild the tokenizer from `to_blob`'s bytes; ArtifactError if they are damaged."""
        return cls(vocabulary_from_blob(blob))

    def to_blob(self) -> bytes:
        """Return the compressed word lists."""
        return vocabulary_to_blob(self.vocabulary)

    def encode(self, text: bytes) -> Ids:
        """Return the ids of one document; takes every byte string."""
        blocks = [self._encode_block(text, start, end) for start, end in _blocks(text)]
        return np.concatenate([np.zeros(0, dtype=np.uint16), *blocks])

    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Return the bytes of a stream of ids."""
        return self._table.join(self._codes(ids))

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the bytes of each id; an implied space belongs to the word after it."""
        return self._table.count(self._codes(ids))

    def token_text(self, token: int) -> str:
        """Return the piece; a tail starts with '##', a nibble shows its digit."""
        if token == self.bos_id:
            return "<bos>"
        if token < 1 + self.vocabulary.num_nibbles:
            return f"<nibble {token - self._first_nibble:x}>"
        text = printable(self._table[token])
        is_tail = self._first_word - len(self.vocabulary.tails) <= token < self._first_word
        return f"##{text}" if is_tail else text

    def implied_spaces(self) -> tuple[Flags, Flags]:
        """See Tokenizer; a letter spelled by nibbles asks too, which no single id shows."""
        takes_V = np.arange(self.vocab_size) >= self._first_word
        return self._ends_word[: self.vocab_size], takes_V

    def _codes(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        flat = check_ids(ids, self.vocab_size).astype(np.int64)
        starts_word = flat >= self._first_word
        codes = self._join_nibbles(flat)
        implied = np.zeros(len(codes), dtype=bool)
        implied[1:] = starts_word[1:] & self._ends_word[codes[:-1]]
        return codes + self._num_codes * implied

    def _join_nibbles(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        is_nibble = (ids >= 1) & (ids < 1 + self.vocabulary.num_nibbles)
        if not is_nibble.any():
            return ids
        positions = np.arange(len(ids))
        run_start = np.maximum.accumulate(np.where(is_nibble, -1, positions)) + 1
        is_second = is_nibble & ((positions - run_start) % 2 == 1)
        second = np.flatnonzero(is_second)
        digits = ids - self._first_nibble
        codes = ids.copy()
        codes[second] = self.vocab_size + 16 * digits[second - 1] + digits[second]
        return codes

    def _encode_block(self, text: bytes, start: int, end: int) -> Ids:
        runs = RUNS.findall(text, start, end)
        unknown = [run for run in set(runs) if run not in self._cache]
        for run in unknown:
            self._cache[run] = self._spell(run)
        if start == 0 and runs[0] == b" ":
            runs[0] = _EXPLICIT_SPACE
        if end == len(text) and runs[-1] == b" ":
            runs[-1] = _EXPLICIT_SPACE
        if not self._joining.isdisjoint(runs):
            self._keep_spaces_(runs)
        ids = np.fromiter(chain.from_iterable(map(self._cache.__getitem__, runs)), dtype=np.uint16)
        self._forget_long_(unknown)
        return ids

    def _keep_spaces_(self, runs: list[bytes]) -> None:
        joining = [i for i, run in enumerate(runs) if run in self._joining]
        for i in joining:
            if i > 0 and runs[i - 1] == b" ":
                runs[i - 1] = _EXPLICIT_SPACE

    def _forget_long_(self, runs: Iterable[bytes]) -> None:
        if len(self._cache) > _CACHE_ENTRIES:
            self._clear_cache_()
            return
        for run in runs:
            if len(run) > _STRETCH_BYTES:
                del self._cache[run]
                self._joining.discard(run)

    def _clear_cache_(self) -> None:
        space = self._separator_ids[b" "]
        self._cache = {_EXPLICIT_SPACE: (space,), b" ": ()}
        self._joining: set[bytes] = set()

    def _spell(self, run: bytes) -> tuple[int, ...]:
        tails = self._tail_ids if is_word(run) else self._separator_ids
        starts = self._word_ids if is_word(run) else tails
        ids: list[int] = []
        for begin in range(0, len(run), _STRETCH_BYTES):
            pieces, _ = shortest_spelling(run[begin : begin + _STRETCH_BYTES], starts, tails)
            for piece in pieces:
                ids += self._piece_ids(piece, starts, tails)
                starts = tails
        if is_word(run) and ids[0] < self._first_word:
            self._joining.add(run)
        return tuple(ids)

    def _piece_ids(
        self, piece: bytes, starts: Mapping[bytes, int], tails: Mapping[bytes, int]
    ) -> tuple[int, ...]:
        token = starts.get(piece, tails.get(piece))
        if token is not None:
            return (token,)
        return (self._first_nibble + piece[0] // 16, self._first_nibble + piece[0] % 16)


def _blocks(text: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        cut = _CUT.search(text, min(start + _BLOCK_BYTES, len(text)))
        end = cut.end() if cut is not None else len(text)
        yield start, end
        start = end


def _numbered(pieces: tuple[bytes, ...], start: int) -> dict[bytes, int]:
    return {piece: start + i for i, piece in enumerate(pieces)}
