"""The law of the implied space, by hand-written examples."""

import lzma
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError
from parbyte.text import word_tokenizer
from parbyte.text.blob import MAX_PLAIN_BYTES, expand, squeeze
from parbyte.text.word_spelling import shortest_spelling
from parbyte.text.word_tokenizer import WordTokenizer
from parbyte.text.word_vocabulary import (
    WordVocabulary,
    make_vocabulary,
    vocabulary_from_blob,
    vocabulary_to_blob,
)

VOCABULARY = make_vocabulary(
    separators=[b".", b", ", b".\n", b" [", b"] ", b"[", b"]", b","],
    tails=[*(bytes([b]) for b in b"aehimstx"), b"eth"],
    words=[b"a", b"the", b"smit", b"beginning", b"In", b"was"],
)
TOKENIZER = WordTokenizer(VOCABULARY)


def spelled(text: bytes) -> list[str]:
    return [TOKENIZER.token_text(int(token)) for token in TOKENIZER.encode(text)]


def ids_of(*names: str) -> np.ndarray:
    texts = [TOKENIZER.token_text(i) for i in range(TOKENIZER.vocab_size)]
    return np.array([texts.index(name) for name in names])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"In the beginning", ["In", "the", "beginning"]),
        (b"In the, a.", ["In", "the", ", ", "a", "."]),
        (b"the [was] a", ["the", " [", "was", "] ", "a"]),
        (b" the", [" ", "the"]),
        (b"the ", ["the", " "]),
        (b" ", [" "]),
        (b"a  a", ["a", " ", " ", "a"]),
        (b"smiteth the", ["smit", "##eth", "the"]),
        (b"the smiteth", ["the", "smit", "##eth"]),
        (b"the them", ["the", "the", "##m"]),
        # No word begins with x: the space before it must be written.
        (b"the xi the", ["the", " ", "##x", "##i", "the"]),
        (b"the, xi", ["the", ", ", "##x", "##i"]),
        (b"the\n", ["the", "<nibble 0>", "<nibble a>"]),
        (b"a Q a", ["a", " ", "<nibble 5>", "<nibble 1>", "a"]),
        ("a é".encode(), ["a", " ", *(f"<nibble {d}>" for d in "c3a9")]),
        (b"", []),
    ],
)
def test_examples_are_spelled_as_the_law_says(text: bytes, pieces: list[str]) -> None:
    assert spelled(text) == pieces
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize(
    ("names", "text", "counts"),
    [
        (["the", "the"], b"the the", [3, 4]),
        (["<bos>", "the", "<bos>", "the"], b"thethe", [0, 3, 0, 3]),
        ([".", "the"], b".the", [1, 3]),
        (["the", "##eth", "the"], b"theeth the", [3, 3, 4]),
        (["<nibble 4>", "the"], b"the", [0, 3]),
        (["<nibble 4>", "<nibble 1>", "the"], b"A the", [0, 1, 4]),
        (["<nibble 4>", "<nibble 1>", "<nibble 4>"], b"A", [0, 1, 0]),
        (["<nibble 0>", "<nibble a>", "the"], b"\nthe", [0, 1, 3]),
        (["<nibble 4>", "<bos>", "<nibble 1>"], b"", [0, 0, 0]),
        ([" ", " "], b"  ", [1, 1]),
    ],
)
def test_any_ids_decode_by_the_same_law(names: list[str], text: bytes, counts: list[int]) -> None:
    assert TOKENIZER.decode(ids_of(*names)) == text
    assert TOKENIZER.byte_counts(ids_of(*names)).tolist() == counts


def slow_decode(ids: list[int]) -> bytes:
    """Decode one id at a time, from the text of the law alone."""
    pieces = [b""] * 17
    pieces += [*VOCABULARY.separators, *VOCABULARY.tails, *VOCABULARY.words]
    first_word = TOKENIZER.vocab_size - len(VOCABULARY.words)
    out, before, digit = b"", b"", None
    for token in ids:
        piece = pieces[token]
        if 1 <= token <= 16 and digit is None:
            digit = token - 1
        elif 1 <= token <= 16:
            piece, digit = bytes([16 * (digit or 0) + token - 1]), None
        else:
            digit = None
        ends_in_letter = before[-1:].isalpha() or before[-1:] >= b"\x80"
        out += b" " + piece if token >= first_word and ends_in_letter else piece
        before = piece
    return out


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30))
def test_decoding_agrees_with_a_slow_reading_of_the_law(ids: list[int]) -> None:
    assert TOKENIZER.decode(np.array(ids, dtype=np.uint16)) == slow_decode(ids)


@given(
    st.lists(st.sampled_from([b"the", b"xi", b" ", b"  ", b", ", b"12", b"\n", b"Q"]), max_size=60)
)
def test_a_long_document_cut_into_blocks_comes_back(parts: list[bytes]) -> None:
    text = b"".join(parts)
    whole = TOKENIZER.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_tokenizer, "_BLOCK_BYTES", 5)
        cut = TOKENIZER.encode(text)
    assert TOKENIZER.decode(cut) == text
    if not re.search(rb"[^A-Za-z]{4}", text):  # long separators are cut, too, and spelled otherwise
        assert cut.tolist() == whole.tolist()


def test_the_cache_is_emptied_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = WordTokenizer(VOCABULARY)
    monkeypatch.setattr(word_tokenizer, "_CACHE_ENTRIES", 4)
    for text in (b"the xi the xi. smiteth ths sth tax" + b"q" * 100, b"a xi a xi"):
        for _ in range(3):
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_all_byte_values_as_pieces_need_no_nibbles() -> None:
    letters = [bytes([b]) for b in range(256) if bytes([b]).isalpha() or b >= 128]
    others = {bytes([b]) for b in range(256)} - set(letters)
    tokenizer = WordTokenizer(make_vocabulary(others, letters, [b"the"]))
    assert tokenizer.vocab_size == 1 + 256 + 1
    text = bytes(range(256)) + b" the \xff"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.binary(max_size=12), st.sets(st.binary(min_size=1, max_size=3), max_size=8))
def test_the_shortest_spelling_is_no_longer_than_any_other(run: bytes, pieces: set[bytes]) -> None:
    best = {0: 0}
    for end in range(1, len(run) + 1):
        options = [best[end - 1] + 2]
        options += [best[start] + 1 for start in range(end) if run[start:end] in pieces]
        best[end] = min(options)
    found, cost = shortest_spelling(run, pieces, pieces)
    assert b"".join(found) == run
    # A lone first byte without a piece is charged for the space that may stand before it.
    assert best[len(run)] <= cost <= best[len(run)] + 1


def test_equal_vocabularies_have_equal_blobs_and_survive_them() -> None:
    again = vocabulary_from_blob(vocabulary_to_blob(VOCABULARY))
    assert again == VOCABULARY
    assert vocabulary_to_blob(again) == vocabulary_to_blob(VOCABULARY)


@pytest.mark.parametrize(
    "bad",
    [
        WordVocabulary(separators=(), tails=(), words=()),
        WordVocabulary(separators=(b"!",), tails=(), words=()),
        WordVocabulary(separators=(b" ", b"!", b"!"), tails=(), words=()),
        WordVocabulary(separators=(b" ", b"a"), tails=(), words=()),
        WordVocabulary(separators=(b" ",), tails=(), words=(b"b", b"a")),
        WordVocabulary(separators=(b" ",), tails=(b"a" * 32,), words=()),
        WordVocabulary(separators=(b" ", b"!" * 40), tails=(), words=()),
    ],
)
def test_a_hostile_vocabulary_is_refused(bad: WordVocabulary) -> None:
    with pytest.raises(ArtifactError):
        vocabulary_from_blob(vocabulary_to_blob(bad))


def test_a_blob_that_claims_or_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(ArtifactError, match="over the limit"):
        expand(struct.pack("<BI", 1, MAX_PLAIN_BYTES + 1))
    bomb = squeeze(bytes(2**20))
    with pytest.raises(ArtifactError, match="size"):
        expand(bomb[:1] + struct.pack("<I", 100) + bomb[5:])
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1}]
    zeros = lzma.compress(bytes(2**20), format=lzma.FORMAT_RAW, filters=filters)
    with pytest.raises(ArtifactError):
        expand(struct.pack("<BI", 2, 100) + zeros)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_squeezed_bytes_expand_again(unit: bytes, times: int) -> None:
    assert expand(squeeze(unit * times)) == unit * times
