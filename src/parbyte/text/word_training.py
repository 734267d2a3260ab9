"""Count the words and separators of a corpus and choose the `words` tokenizer's vocabulary."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from parbyte.base.errors import DataError
from parbyte.text.word_merging import Kind
from parbyte.text.word_selection import select_pieces
from parbyte.text.word_vocabulary import (
    MAX_PIECE_BYTES,
    RUNS,
    WordVocabulary,
    is_word,
    make_vocabulary,
)

_MAX_COUNTED = 1_000_000
_MAX_CHOSEN_FROM = 50_000
_BLOCK_BYTES = 2**22


@dataclass
class RunCounts:
    """How often each word and separator of up to 31 bytes occurs, and which bytes do."""

    runs: Counter[bytes] = field(default_factory=Counter)
    bytes_seen: set[int] = field(default_factory=set)
    num_bytes: int = 0


def count_runs(documents: Iterable[bytes], *, max_counted: int = _MAX_COUNTED) -> RunCounts:
    """Count words and separators in a stream; rare ones are dropped when there are too many.

    Memory: about 150 bytes for each of max_counted entries, and one block of text.
    """
    counts = RunCounts()
    for document in documents:
        counts.num_bytes += len(document)
        for block in _blocks(document):
            counts.bytes_seen.update(block)
            counts.runs.update(RUNS.findall(block))
            if len(counts.runs) > max_counted:
                counts.runs = _most_common(counts.runs, max_counted // 2)
    for run in [run for run in counts.runs if len(run) > MAX_PIECE_BYTES]:
        del counts.runs[run]
    return counts


def choose_vocabulary(counts: RunCounts, vocab_size: int) -> WordVocabulary:
    """Fill at most vocab_size ids with what shortens the counted text most.

    Raises DataError if vocab_size is too small for the bytes that occur.
    """
    singles = _single_bytes(counts.bytes_seen)
    letters = {byte for byte in singles if is_word(byte)}
    needed = make_vocabulary(singles - letters, letters, []).size
    if needed > vocab_size:
        raise DataError(
            f"'text.vocab_size' is {vocab_size:,}, but the bytes of this corpus alone need "
            f"{needed:,}; raise it"
        )
    frequent = _most_common(counts.runs, _MAX_CHOSEN_FROM)
    # Almost every single space is implied.
    frequent.pop(b" ", None)
    pieces = select_pieces(frequent, singles, vocab_size - needed)
    return make_vocabulary(pieces[Kind.SEPARATOR], pieces[Kind.TAIL], pieces[Kind.WORD])


def _single_bytes(seen: set[int]) -> set[bytes]:
    # Ids for the few missing bytes cost no more than the 16 nibbles that would spell them.
    values = range(256) if len(seen) >= 240 else seen
    return {b" ", *(bytes([value]) for value in values)}


def _most_common(counts: Counter[bytes], size: int) -> Counter[bytes]:
    # Ties are broken by the bytes: the order of counting must not decide the vocabulary.
    best = sorted(counts, key=lambda run: (-counts[run], run))[:size]
    return Counter({run: counts[run] for run in best})


def _blocks(document: bytes) -> Iterator[bytes]:
    for start in range(0, len(document), _BLOCK_BYTES):
        yield document[start : start + _BLOCK_BYTES]
