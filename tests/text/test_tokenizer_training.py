"""Choosing a vocabulary, and what the trainer says and refuses."""

from collections import Counter
from pathlib import Path

import pytest

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.sentencepiece_training import train_sentencepiece
from parbyte.text.tokenizer_training import train_tokenizer
from parbyte.text.word_merging import Kind, merge_pieces
from parbyte.text.word_tokenizer import WordTokenizer
from parbyte.text.word_training import choose_vocabulary, count_runs

LINE = b"The king smiteth, he sitteth, she sendeth; the kings and the sons [are] sent.\n"
QUIET = Console(quiet=True)


def test_the_trainer_says_how_many_bytes_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [LINE * 5, LINE * 7]
    for kind, size in (("words", 120), ("sentencepiece", 290)):
        train_tokenizer(TextConfig(tokenizer=kind, vocab_size=size), documents, Console())
        assert f"{12 * len(LINE):,} bytes" in capsys.readouterr().err


def test_the_vocabulary_does_not_depend_on_the_order_of_documents() -> None:
    documents = [LINE, LINE[:40] * 3, b"Other words, other sons. " * 4]
    forwards = choose_vocabulary(count_runs(documents), 120)
    backwards = choose_vocabulary(count_runs(documents[::-1]), 120)
    assert forwards == backwards


@pytest.mark.parametrize("vocab_size", [48, 56, 64, 76])
def test_the_vocabulary_fills_the_ids_it_is_given(vocab_size: int) -> None:
    counts = count_runs([LINE * 3])
    assert choose_vocabulary(counts, vocab_size).size == vocab_size


def test_frequent_words_and_endings_become_pieces() -> None:
    vocabulary = choose_vocabulary(count_runs([LINE * 30 + b"He eateth, drinketh, goeth. "]), 90)
    assert b"the" in vocabulary.words
    assert any(tail.endswith(b"eth") for tail in vocabulary.tails)
    assert b", " in vocabulary.separators


def test_larger_vocabularies_spell_in_fewer_tokens() -> None:
    counts = count_runs([LINE * 30])
    sizes = [
        len(WordTokenizer(choose_vocabulary(counts, size)).encode(LINE)) for size in (48, 60, 90)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_counting_a_stream_is_bounded_and_keeps_what_is_frequent() -> None:
    documents = (b"light and %d%s of the light. " % (i, b"abcdefghij"[: i % 9]) for i in range(500))
    counts = count_runs(documents, max_counted=40)
    assert len(counts.runs) <= 40 + 8
    assert counts.runs[b"light"] >= 900


def test_counting_agrees_with_a_plain_counter() -> None:
    counts = count_runs([b"a b, a", b"b\n"])
    assert counts.runs == Counter({b"a": 2, b"b": 2, b" ": 1, b", ": 1, b"\n": 1})
    assert counts.num_bytes == 8
    assert counts.bytes_seen == set(b"ab, \n")


def test_runs_too_long_for_a_piece_are_left_out() -> None:
    vocabulary = choose_vocabulary(count_runs([b"x" * 50 + b"-" * 50 + b"yes " * 9]), 100)
    lists = vocabulary.words + vocabulary.tails + vocabulary.separators
    assert max(map(len, lists)) <= 31


def test_a_corpus_of_all_bytes_needs_no_nibbles() -> None:
    vocabulary = choose_vocabulary(count_runs([bytes(range(256)) * 2]), 400)
    assert vocabulary.num_nibbles == 0
    assert choose_vocabulary(count_runs([bytes(range(245)) * 2]), 400).num_nibbles == 0


def test_neighbours_are_merged_by_frequency_and_keep_beginnings_apart() -> None:
    pieces = merge_pieces({b"aba": 5, b"ab": 4, b"cab": 3, b"--": 2, b"xy": 1}, 7)
    assert set(pieces[:3]) == {(b"a", Kind.WORD), (b"c", Kind.WORD), (b"x", Kind.WORD)}
    assert pieces[3:] == [
        (b"ab", Kind.WORD),
        (b"aba", Kind.WORD),
        (b"ab", Kind.TAIL),
        (b"cab", Kind.WORD),
    ]
    assert merge_pieces({b"--": 2, b"xy": 1}, 9)[-1] == (b"--", Kind.SEPARATOR)


def test_too_small_a_vocabulary_is_refused_with_what_is_needed() -> None:
    with pytest.raises(DataError, match=r"text\.vocab_size.*raise it"):
        choose_vocabulary(count_runs([bytes(range(256))]), 200)


@pytest.mark.parametrize("kind", ["words", "sentencepiece"])
def test_an_empty_corpus_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match="empty"):
        train_tokenizer(TextConfig(tokenizer=kind), iter([b""]), QUIET)


def test_a_model_file_is_used_instead_of_training(tmp_path: Path) -> None:
    from parbyte.text.sentencepiece_model import write_model

    path = tmp_path / "own.model"
    path.write_bytes(write_model(train_sentencepiece([LINE * 20], 290).model))
    for kind in ("sentencepiece", "official"):
        config = TextConfig(tokenizer=kind, tokenizer_file=str(path))
        assert train_tokenizer(config, iter([]), QUIET).kind == kind


def test_a_bad_model_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.model"
    for content in (None, b"no model at all"):
        if content is not None:
            path.write_bytes(content)
        config = TextConfig(tokenizer="official", tokenizer_file=str(path))
        with pytest.raises(DataError, match=r"bad\.model"):
            train_tokenizer(config, iter([]), QUIET)


def test_official_without_a_file_is_a_wrong_recipe() -> None:
    with pytest.raises(RecipeError, match="tokenizer_file"):
        TextConfig(tokenizer="official")
