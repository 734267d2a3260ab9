"""SentencePiece as a lossless tokenizer, and the reading and writing of its models."""

import io
from dataclasses import replace
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError, DataError
from parbyte.text import sentencepiece_tokenizer, sentencepiece_training
from parbyte.text.sentencepiece_model import parse_model, write_model
from parbyte.text.sentencepiece_tokenizer import SentencePieceTokenizer
from parbyte.text.sentencepiece_training import train_sentencepiece

CORPUS = b"And God said, Let there be light: and there was light.\nAnd it was so.\n" * 20
MODEL = train_sentencepiece([CORPUS], 300).model
TOKENIZER = SentencePieceTokenizer(MODEL)


def train_unigram(**settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.decode().splitlines()),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def test_awkward_bytes_are_spelled_by_byte_pieces() -> None:
    ids = TOKENIZER.encode(b"\xe2\x96\x81\x00\xff")
    assert [TOKENIZER.token_text(int(token)) for token in ids] == [
        *("\\xe2", "\\x96", "\\x81", "\\x00", "\\xff")
    ]


def test_names_of_pieces_in_the_text_are_plain_text() -> None:
    text = b"<s></s><unk><0x41>"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_lines_over_the_trainers_limit_are_not_skipped() -> None:
    unbroken = train_sentencepiece([b" ".join([b"hallelujah"] * 3_000)], 280)
    assert unbroken.num_bytes == unbroken.num_trained_bytes == 32_999
    assert "\u2581hallelujah" in unbroken.model.pieces


def test_a_large_corpus_is_thinned_and_both_sizes_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sentencepiece_training, "MAX_SAMPLE_BYTES", 5_000)
    training = train_sentencepiece([CORPUS] * 40, 300)
    assert training.num_bytes == 40 * len(CORPUS)
    assert 2_500 <= training.num_trained_bytes <= 5_000


def test_training_is_repeatable() -> None:
    assert write_model(train_sentencepiece([CORPUS], 300).model) == write_model(MODEL)


def test_too_small_a_vocabulary_is_one_line_of_advice() -> None:
    with pytest.raises(DataError, match=r"text\.vocab_size.*259") as caught:
        train_sentencepiece([CORPUS], 259)
    assert "\n" not in str(caught.value)


def test_a_short_text_gives_fewer_ids_than_asked_for() -> None:
    assert 258 < len(train_sentencepiece([b"tiny tiny tiny"], 5_000).model.pieces) < 290


def test_training_takes_text_that_is_no_utf8() -> None:
    training = train_sentencepiece([b"\xff\xfe\0 light \xe2\x96\x81" * 50], 270)
    assert training.num_bytes == 50 * 13


@given(st.text(alphabet="ab \n\u2581é", max_size=40))
def test_a_long_document_cut_into_blocks_comes_back(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentencepiece_tokenizer, "_BLOCK_CHARACTERS", 3)
        ids = TOKENIZER.encode(text.encode())
    assert TOKENIZER.decode(ids) == text.encode()


def test_a_trained_model_is_stored_as_its_list_of_pieces() -> None:
    assert len(TOKENIZER.to_blob()) < 500
    assert write_model(SentencePieceTokenizer.from_blob(TOKENIZER.to_blob()).model) == write_model(
        MODEL
    )


def test_a_foreign_lossless_model_is_taken_and_stored_whole() -> None:
    settings = {"normalization_rule_name": "identity", "model_type": "unigram"}
    settings |= {"remove_extra_whitespaces": False, "add_dummy_prefix": False}
    tokenizer = SentencePieceTokenizer(parse_model(train_unigram(**settings)))
    text = b"  And  God\n said\xff\xe2\x96\x81 "
    assert tokenizer.decode(tokenizer.encode(text)) == text
    again = SentencePieceTokenizer.from_blob(tokenizer.to_blob())
    assert (again.encode(text) == tokenizer.encode(text)).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"remove_extra_whitespaces": True}, "drops blanks"),
        ({"add_dummy_prefix": True}, "adds a space"),
        ({"byte_fallback": False}, "by bytes"),
        ({"bos_id": -1}, "no BOS"),
    ],
)
def test_a_model_that_alters_text_is_refused_with_the_reason(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        SentencePieceTokenizer(replace(MODEL, **change))


def test_a_normalising_model_is_refused() -> None:
    with pytest.raises(DataError, match="normalises"):
        SentencePieceTokenizer(parse_model(train_unigram(add_dummy_prefix=False)))


def test_our_writing_of_a_model_is_read_back_and_works_like_the_original() -> None:
    original = train_unigram()
    model = parse_model(original)
    assert parse_model(write_model(model)) == model
    ours = sentencepiece.SentencePieceProcessor(model_proto=write_model(model))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=original)
    for text in ("And God said ½ é  x", "", " \n\u2581"):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.bos_id() == theirs.bos_id() == model.bos_id


@given(st.binary(max_size=100))
def test_junk_is_no_model(junk: bytes) -> None:
    with pytest.raises(ArtifactError):
        parse_model(junk)


def test_a_normaliser_table_that_points_outside_itself_is_refused() -> None:
    model = parse_model(train_unigram())
    table = bytearray(model.charsmap)
    table[4:8] = (0x7FFFFC00).to_bytes(4, "little")
    with pytest.raises(ArtifactError, match="outside itself"):
        parse_model(write_model(replace(model, charsmap=bytes(table))))
    for damaged in (b"\1", model.charsmap[:-1], model.charsmap[:1000]):
        with pytest.raises(ArtifactError, match="normaliser table"):
            parse_model(write_model(replace(model, charsmap=damaged)))


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": 3},
        {"pieces": ("<unk>", "a", "a"), "scores": (0.0,) * 3},
        {"pieces": ("<unk>", "a", ""), "scores": (0.0,) * 3},
        {"pieces": ("<unk>", "a", "b"), "scores": (0.0, 0.0, float("nan"))},
    ],
)
def test_a_model_that_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    base = replace(MODEL, pieces=("<unk>", "<s>", "x"), scores=(0.0,) * 3, types=MODEL.types[:3])
    base = replace(base, types=(*MODEL.types[:2], MODEL.types[-1]))
    parse_model(write_model(base))
    with pytest.raises(ArtifactError):
        parse_model(write_model(replace(base, **change)))
