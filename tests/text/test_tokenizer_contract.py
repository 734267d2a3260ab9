"""What every tokenizer promises, whatever its kind."""

import functools
import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError, DataError
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.official import OfficialTokenizer
from parbyte.text.sentencepiece_model import parse_model
from parbyte.text.tokenizer import Tokenizer, load_tokenizer
from parbyte.text.tokenizer_training import train_tokenizer

CORPUS = (
    b"In the beginning God created the heaven and the earth. And the earth was without form,\n"
    b"and void; and darkness [was] upon the face of the deep. And the Spirit of God moved upon\n"
    b"the face of the waters. And God said, Let there be light: and there was light.\n"
) * 8
LOSSLESS = ("bytes", "words", "sentencepiece")
KINDS = (*LOSSLESS, "official")

AWKWARD = [
    *(b" ", b"  ", b" \n ", b"\r\n", b"\n", b"\t", b"\0", b"[was] ", b"(x), ", b"12 345 "),
    *(b"the", b"the ", b" God", b"Mahalaleel ", b"smiteth", b"THE", b"\xff", b"\xe2\x96", b"\xc3"),
    *(t.encode() for t in ("\u2581", "\u2581a", "é", "\ufeff\u3000\u0085", "\u200b½…")),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"<s>", b"<0x41>", b"<unk>", b"\xc2\xa0"),
]
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(AWKWARD),
        st.binary(max_size=6),
    ),
    max_size=12,
).map(b"".join)


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "official":
        return OfficialTokenizer(parse_model(contest_model()))
    config = TextConfig(tokenizer=kind, vocab_size=350 if kind == "sentencepiece" else 160)
    return train_tokenizer(config, [CORPUS], Console(quiet=True))


@functools.cache
def blob_of(kind: str) -> bytes:
    return tokenizer_of(kind).to_blob()


@functools.cache
def contest_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.decode().splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        normalization_rule_name="nmt_nfkc",
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        character_coverage=0.999,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.one_of(TEXTS, st.binary(max_size=80)))
def test_every_byte_string_comes_back(kind: str, text: bytes) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint16
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_counts(ids).sum()) == len(text)
    assert tokenizer.bos_id not in ids


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"  ", b" a", b"a ", b"a b", b"a  b", b"\n", b"\r\n\r\n", b"\0"),
        *(b"Zzyzx Zzyzx", b" the the ", bytes(range(256)) * 2, b"\xff" * 200),
        "\u2581 a\u2581b".encode(),
    ],
)
def test_known_corner_cases_come_back(kind: str, text: bytes) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_counts(ids).sum()) == len(text)


@pytest.mark.parametrize("kind", LOSSLESS)
@given(documents=st.lists(TEXTS, max_size=4))
def test_a_stream_of_documents_decodes_to_their_bytes_in_a_row(
    kind: str, documents: list[bytes]
) -> None:
    tokenizer = tokenizer_of(kind)
    bos = np.array([tokenizer.bos_id], dtype=np.uint16)
    parts = [np.concatenate([bos, tokenizer.encode(document)]) for document in documents]
    stream = np.concatenate(parts) if parts else bos
    assert tokenizer.decode(stream) == b"".join(documents)
    counts = tokenizer.byte_counts(stream)
    assert len(counts) == len(stream)
    assert (counts[stream == tokenizer.bos_id] == 0).all()
    assert int(counts.sum()) == sum(map(len, documents))


@pytest.mark.parametrize("kind", KINDS)
@given(fractions=st.lists(st.floats(0, 1, exclude_max=True), max_size=40))
def test_any_ids_decode_and_their_bytes_are_counted(kind: str, fractions: list[float]) -> None:
    tokenizer = tokenizer_of(kind)
    ids = (np.array(fractions) * tokenizer.vocab_size).astype(np.uint16)
    text = tokenizer.decode(ids)
    assert int(tokenizer.byte_counts(ids).sum()) == len(text)


@pytest.mark.parametrize("kind", KINDS)
@given(fractions=st.lists(st.floats(0, 1, exclude_max=True), max_size=20), cut=st.integers(0, 20))
def test_bytes_of_a_prefix_do_not_depend_on_what_follows(
    kind: str, fractions: list[float], cut: int
) -> None:
    tokenizer = tokenizer_of(kind)
    ids = (np.array(fractions) * tokenizer.vocab_size).astype(np.uint16)
    assert tokenizer.decode(ids).startswith(tokenizer.decode(ids[:cut]))
    assert (tokenizer.byte_counts(ids)[:cut] == tokenizer.byte_counts(ids[:cut])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_outside_the_vocabulary_is_refused(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    for bad in (np.array([tokenizer.vocab_size]), np.array([-1])):
        with pytest.raises(DataError, match="outside the vocabulary"):
            tokenizer.decode(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_gives_the_same_tokenizer(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    blob = blob_of(kind)
    again = load_tokenizer(kind, blob)
    assert again.to_blob() == blob
    assert (again.kind, again.vocab_size, again.bos_id) == (
        kind,
        tokenizer.vocab_size,
        tokenizer.bos_id,
    )
    text = b"And God said, Mahalaleel moved upon the deep."
    assert (again.encode(text) == tokenizer.encode(text)).all()
    ids = np.arange(tokenizer.vocab_size)
    assert again.decode(ids) == tokenizer.decode(ids)
    assert [again.token_text(int(i)) for i in ids] == [tokenizer.token_text(int(i)) for i in ids]


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_has_a_printable_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    texts = [tokenizer.token_text(i) for i in range(tokenizer.vocab_size)]
    assert all(text and text.isprintable() for text in texts)


@pytest.mark.parametrize("kind", KINDS)
@given(junk=st.binary(min_size=1, max_size=60))
def test_a_foreign_blob_is_refused(kind: str, junk: bytes) -> None:
    with pytest.raises(ArtifactError):
        load_tokenizer(kind, junk)


@pytest.mark.parametrize("kind", ("words", "sentencepiece", "official"))
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_blob_is_refused_or_still_a_tokenizer(kind: str, place: float, flip: int) -> None:
    blob = bytearray(blob_of(kind))
    blob[int(place * len(blob))] ^= flip
    try:
        tokenizer = load_tokenizer(kind, bytes(blob))
    except ArtifactError:
        return
    tokenizer.decode(np.arange(tokenizer.vocab_size))


@pytest.mark.parametrize("kind", ("words", "sentencepiece", "official"))
def test_a_blob_cut_short_is_refused(kind: str) -> None:
    blob = blob_of(kind)
    for size in (0, 4, len(blob) // 2, len(blob) - 1):
        with pytest.raises(ArtifactError):
            load_tokenizer(kind, blob[:size])


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_with_something_after_it_is_refused(kind: str) -> None:
    with pytest.raises(ArtifactError):
        load_tokenizer(kind, blob_of(kind) + b"x")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ArtifactError, match="unknown kind"):
        load_tokenizer("morse", b"")
