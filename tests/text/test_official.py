"""The contest's models and byte accounting, against the contest's rule written out here."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError
from parbyte.text.official import OfficialTokenizer
from parbyte.text.sentencepiece_model import PieceType, SentencePieceModel, parse_model, write_model

CORPUS = "And God said, Let there be light: and there was light. And it was so 1234 times. " * 20


def _train(**settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split(". ")),
        model_writer=model,
        model_type="bpe",
        vocab_size=330,
        normalization_rule_name="nmt_nfkc",
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        character_coverage=0.999,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        **settings,
    )
    return model.getvalue()


PLAIN = _train()
WITH_SYMBOLS = _train(user_defined_symbols=["\ue001", "\u2581x", "<0x41>x"])


def _without_standalone_mark(data: bytes) -> bytes:
    model = parse_model(data)
    keep = [i for i, piece in enumerate(model.pieces) if piece != "\u2581"]
    return write_model(_choose(model, keep))


def _with_unused(data: bytes) -> bytes:
    model = parse_model(data)
    types = list(model.types)
    types[-1] = PieceType.UNUSED
    return write_model(replace(model, types=tuple(types)))


def _choose(model: SentencePieceModel, keep: list[int]) -> SentencePieceModel:
    return replace(
        model,
        pieces=tuple(model.pieces[i] for i in keep),
        scores=tuple(model.scores[i] for i in keep),
        types=tuple(model.types[i] for i in keep),
    )


MODELS = {
    "plain": PLAIN,
    "symbols": WITH_SYMBOLS,
    "no standalone mark": _without_standalone_mark(PLAIN),
    "unused piece": _with_unused(PLAIN),
}


def reference_bytes(model: bytes, tokens: list[int]) -> list[int]:
    """Count as the contest's scorer: tables over the library's own view of the pieces."""
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    size = library.get_piece_size()
    base, has_space, is_boundary = [0] * size, [False] * size, [True] * size
    for token in range(size):
        if library.is_control(token) or library.is_unknown(token) or library.is_unused(token):
            continue
        is_boundary[token] = False
        if library.is_byte(token):
            base[token] = 1
            continue
        piece = library.id_to_piece(token)
        if piece.startswith("\u2581"):
            has_space[token] = True
            piece = piece[1:]
        base[token] = len(piece.encode("utf-8"))
    counts = []
    for before, token in zip([library.bos_id(), *tokens], tokens, strict=False):
        counts.append(base[token] + int(has_space[token] and not is_boundary[before]))
    return counts


def official(name: str) -> OfficialTokenizer:
    return OfficialTokenizer(parse_model(MODELS[name]))


@pytest.mark.parametrize("name", MODELS)
def test_every_pair_of_tokens_counts_as_in_the_contest(name: str) -> None:
    tokenizer = official(name)
    size = tokenizer.vocab_size
    starts = [*range(6), 100, *range(255, size)]
    for first in starts:
        tokens = [token for second in starts for token in (first, second)]
        counts = tokenizer.byte_counts(np.array(tokens))
        assert counts.tolist() == reference_bytes(MODELS[name], tokens)
        assert len(tokenizer.decode(np.array(tokens))) == counts.sum()


@given(st.lists(st.integers(0, 300), max_size=40))
def test_any_stream_counts_as_in_the_contest_and_as_it_decodes(tokens: list[int]) -> None:
    tokenizer = official("plain")
    counts = tokenizer.byte_counts(np.array(tokens, dtype=np.uint16))
    assert counts.tolist() == reference_bytes(PLAIN, tokens)
    assert len(tokenizer.decode(np.array(tokens, dtype=np.uint16))) == counts.sum()


def test_a_space_counts_once_and_not_at_a_boundary() -> None:
    tokenizer = official("plain")
    ids = tokenizer.encode(b"And God")
    texts = [tokenizer.token_text(int(token)) for token in ids]
    assert texts[-1] == " God"
    assert tokenizer.byte_counts(ids)[-1] == 4
    after_bos = np.array([tokenizer.bos_id, ids[-1]])
    assert tokenizer.byte_counts(after_bos).tolist() == [0, 3]
    assert tokenizer.decode(after_bos) == b"God"


def test_a_byte_piece_counts_one_byte() -> None:
    tokenizer = official("plain")
    ids = tokenizer.encode("é".encode())
    assert tokenizer.byte_counts(ids).tolist() == [1, 1]
    assert tokenizer.decode(ids) == "é".encode()


def test_clean_text_comes_back_exactly() -> None:
    tokenizer = official("plain")
    text = "And God said, 12 漢字 é light.".encode()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.byte_counts(ids).sum() == len(text)
    stream = np.concatenate([[tokenizer.bos_id], ids, [tokenizer.bos_id], ids])
    assert tokenizer.decode(stream) == text * 2


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        (b" And", 0),
        (b"And ", 3),
        (b"And  God", 4),
        (b"And\nGod", 3),
        (b"And\tGod", 3),
        (b"And\xc2\xa0God", 3),
        ("it…".encode(), 2),
        ("a ½".encode(), 2),
        ("a \u2581 b".encode(), 2),
        (b"light\xff", 5),
        (b"light\xe2\x96", 5),
        (b"a\x01b", 1),
    ],
)
def test_text_that_the_model_would_alter_is_refused_with_the_offset(
    text: bytes, offset: int
) -> None:
    with pytest.raises(DataError, match=rf"byte {offset}\b"):
        official("plain").encode(text)


def test_without_a_standalone_mark_nothing_passes_silently() -> None:
    with pytest.raises(DataError, match="byte 3"):
        official("no standalone mark").encode(b"And \xc3\xa9")


@given(st.text(max_size=20))
def test_text_comes_back_exactly_or_is_refused(text: str) -> None:
    tokenizer = official("plain")
    try:
        ids = tokenizer.encode(text.encode("utf-8", "surrogatepass"))
    except DataError:
        return
    assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.byte_counts(ids).sum() == len(text.encode())


def test_a_model_without_bos_is_refused() -> None:
    with pytest.raises(DataError, match="no BOS"):
        OfficialTokenizer(replace(parse_model(PLAIN), bos_id=-1))
