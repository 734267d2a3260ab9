"""A prepared folder holds exactly the corpus, split once, or it does not exist."""

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from parbyte.base.errors import DataError, ParbyteError, ResourceError
from parbyte.base.log import Console
from parbyte.text import prepare as prepare_module
from parbyte.text.config import TextConfig
from parbyte.text.manifest import Manifest, load_manifest
from parbyte.text.prepare import load_run_tokenizer, prepare, split_documents
from parbyte.text.shards import open_shards

QUIET = Console(quiet=True)
DOCUMENTS = [f"document {index}: ".encode() + b"some words " * (index % 7) for index in range(60)]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return write_corpus(tmp_path / "corpus.jsonl", DOCUMENTS)


def write_corpus(path: Path, documents: list[bytes]) -> str:
    rows = [json.dumps({"text": document.decode()}) for document in documents]
    path.write_text("\n".join(rows))
    return str(path)


def read_splits(folder: Path) -> dict[str, list[bytes]]:
    tokenizer = load_run_tokenizer(folder)
    names = [name for name, info in load_manifest(folder).splits.items() if info.documents]
    return {
        name: [tokenizer.decode(ids) for ids in split_documents(folder, name, tokenizer)]
        for name in names
    }


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_the_splits_decode_to_the_corpus_and_the_manifest_counts_them(
    tmp_path: Path, corpus: str, kind: str
) -> None:
    config = TextConfig(corpus=corpus, tokenizer=kind, vocab_size=320, shard_tokens=100)
    manifest = prepare(config, tmp_path / "data", QUIET)
    assert load_manifest(tmp_path / "data") == manifest
    splits = read_splits(tmp_path / "data")
    assert splits["train"] + splits["dev"] + splits["heldout"] == DOCUMENTS
    for name, documents in splits.items():
        info = manifest.splits[name]
        stream = open_shards(tmp_path / "data", name)
        assert info.documents == len(documents) == int(np.sum(stream[:] == manifest.bos_id))
        assert info.tokens == len(stream)
        assert info.bytes == sum(map(len, documents))
        assert info.sha256_text == sha256(b"".join(documents)).hexdigest()
        assert len(info.shards) == -(-info.tokens // 100)
        for shard, digest in info.shards.items():
            assert sha256((tmp_path / "data" / shard).read_bytes()).hexdigest() == digest
    assert (tmp_path / "data" / "heldout.txt").read_bytes() == b"".join(splits["heldout"])


def test_the_tokenizer_sees_training_documents_only(
    tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, list[bytes]] = {}

    def train(config: TextConfig, documents, console):
        seen[config.dev_in_training] = list(documents)
        return original(config, seen[config.dev_in_training], console)

    original = prepare_module.train_tokenizer
    monkeypatch.setattr(prepare_module, "train_tokenizer", train)
    for dev_in_training in (False, True):
        config = TextConfig(corpus=corpus, vocab_size=320, dev_in_training=dev_in_training)
        prepare(config, tmp_path / "data", QUIET)
        splits = read_splits(tmp_path / "data")
        assert seen[dev_in_training] == splits["train"]
    assert seen[True] == seen[False] + splits["dev"]


def test_development_text_can_be_trained_on_and_the_manifest_says_so(
    tmp_path: Path, corpus: str
) -> None:
    config = TextConfig(corpus=corpus, tokenizer="bytes", dev_in_training=True)
    manifest = prepare(config, tmp_path / "data", QUIET)
    splits = read_splits(tmp_path / "data")
    assert manifest.dev_in_training
    assert splits["train"] + splits["heldout"] == DOCUMENTS
    assert splits["train"][-len(splits["dev"]) :] == splits["dev"]


def test_without_a_development_share_there_is_no_such_split(tmp_path: Path, corpus: str) -> None:
    config = TextConfig(corpus=corpus, tokenizer="bytes", dev_fraction=0)
    manifest = prepare(config, tmp_path / "data", QUIET)
    assert manifest.splits["dev"].documents == manifest.splits["dev"].tokens == 0
    assert "dev" not in read_splits(tmp_path / "data")


def test_a_held_out_corpus_of_its_own_is_held_out_whole(tmp_path: Path, corpus: str) -> None:
    (tmp_path / "other.txt").write_bytes(b"one paragraph\n\nand another")
    config = TextConfig(corpus=corpus, heldout=str(tmp_path / "other.txt"), tokenizer="bytes")
    prepare(config, tmp_path / "data", QUIET)
    splits = read_splits(tmp_path / "data")
    assert splits["heldout"] == [b"one paragraph\n\nand another"]
    assert splits["train"] + splits["dev"] == DOCUMENTS


def test_a_held_out_file_falls_into_documents_as_the_corpus_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\ntwo\n\nthree")
    (tmp_path / "b.txt").write_bytes(b"four\n\nfive")
    files = {"corpus": str(tmp_path / "a.txt"), "heldout": str(tmp_path / "b.txt")}
    prepare(TextConfig(**files, tokenizer="bytes"), tmp_path / "data", QUIET)
    assert read_splits(tmp_path / "data")["heldout"] == [b"four\n\n", b"five"]


def test_empty_documents_and_held_out_repeats_are_counted(tmp_path: Path) -> None:
    documents = [*(b"long text %d" % index for index in range(40)), b"", b"end", b"z" * 30, b"end"]
    corpus = write_corpus(tmp_path / "a.jsonl", documents)
    config = TextConfig(corpus=corpus, tokenizer="bytes", heldout_fraction=0.05)
    manifest = prepare(config, tmp_path / "data", QUIET)
    assert manifest.empty_documents == 1
    assert (manifest.duplicate_documents, manifest.duplicate_bytes) == (1, 3)


def test_held_out_text_that_is_trained_on_is_refused(tmp_path: Path, corpus: str) -> None:
    config = TextConfig(corpus=corpus, heldout=corpus, tokenizer="bytes")
    with pytest.raises(
        DataError, match=r"100\.0 % of the held-out bytes also stand in the training"
    ):
        prepare(config, tmp_path / "data", QUIET)
    assert os.listdir(tmp_path / "data") == []


def test_a_second_run_replaces_everything_of_the_first(tmp_path: Path, corpus: str) -> None:
    small = TextConfig(corpus=corpus, tokenizer="bytes", shard_tokens=50)
    prepare(small, tmp_path / "data", QUIET)
    (tmp_path / "data" / ".train_000009.bin.part").write_bytes(b"left by a killed process")
    (tmp_path / "data" / "notes.txt").write_bytes(b"the user's own file")
    prepare(TextConfig(corpus=corpus, tokenizer="bytes"), tmp_path / "data", QUIET)
    assert sorted(os.listdir(tmp_path / "data")) == [
        "dev_000000.bin",
        "heldout.txt",
        "heldout_000000.bin",
        "manifest.json",
        "notes.txt",
        "tokenizer.bin",
        "train_000000.bin",
    ]


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, corpus: str) -> None:
    config = TextConfig(corpus=corpus, vocab_size=320)
    assert prepare(config, tmp_path / "one", QUIET) == prepare(config, tmp_path / "two", QUIET)
    for name in os.listdir(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, DataError])
def test_a_failure_at_any_document_leaves_nothing(
    tmp_path: Path, corpus: str, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parbyte.text.byte_tokenizer import ByteTokenizer

    config = TextConfig(corpus=corpus, tokenizer="bytes", shard_tokens=100)
    prepare(config, tmp_path / "data", QUIET)

    def encode(self: ByteTokenizer, text: bytes):
        if text == DOCUMENTS[50]:
            raise stop("byte 7 is odd")
        return np.frombuffer(text, np.uint8).astype(np.uint16)

    monkeypatch.setattr(ByteTokenizer, "encode", encode)
    with pytest.raises(stop) as raised:
        prepare(config, tmp_path / "data", QUIET)
    assert os.listdir(tmp_path / "data") == []
    if stop is DataError:
        assert str(raised.value) == "train document 51: byte 7 is odd"
    with pytest.raises(DataError, match="holds no prepared data"):
        load_manifest(tmp_path / "data")


def test_a_one_document_corpus_and_an_empty_one_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\ntwo\n\nthree\n\nfour")
    config = TextConfig(corpus=str(tmp_path / "a.txt"), tokenizer="bytes", documents="file")
    with pytest.raises(DataError, match=r'1 document, 3 are needed .*: set text.documents = "para'):
        prepare(config, tmp_path, QUIET)
    config = replace(config, documents="auto")
    prepare(config, tmp_path / "data", QUIET)
    assert read_splits(tmp_path / "data")["heldout"] == [b"four"]
    (tmp_path / "a.txt").write_bytes(b"one\n\ntwo")
    with pytest.raises(DataError, match=r"2 documents, 3 are needed .*: part its paragraphs by em"):
        prepare(config, tmp_path / "data", QUIET)
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        prepare(config, tmp_path / "data", QUIET)


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path, corpus: str) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(ResourceError, match="choose another path"):
        prepare(TextConfig(corpus=corpus, tokenizer="bytes"), tmp_path / "data", QUIET)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table | {"format": 2}, "another format"),
        (lambda table: {"format": 1}, "damaged at 'splits'"),
        (lambda table: table | {"vocab_size": "many"}, "damaged at 'vocab_size'"),
        (lambda table: table | {"extra": 1}, "damaged"),
        (lambda table: table | {"splits": table["splits"] | {"dev": {"tokens": 3}}}, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, corpus: str, damage, message: str) -> None:
    prepare(TextConfig(corpus=corpus, tokenizer="bytes"), tmp_path / "data", QUIET)
    path = tmp_path / "data" / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message):
        load_manifest(tmp_path / "data")


def test_a_tokenizer_of_another_run_is_refused(tmp_path: Path, corpus: str) -> None:
    prepare(TextConfig(corpus=corpus, vocab_size=320), tmp_path / "data", QUIET)
    (tmp_path / "data" / "tokenizer.bin").write_bytes(b"")
    with pytest.raises(DataError, match="not the manifest's tokenizer"):
        load_run_tokenizer(tmp_path / "data")
    (tmp_path / "data" / "tokenizer.bin").unlink()
    with pytest.raises(ParbyteError, match="prepare the data again"):
        load_run_tokenizer(tmp_path / "data")


def test_the_built_in_book_is_cut_at_chapters(tmp_path: Path) -> None:
    manifest: Manifest = prepare(TextConfig(tokenizer="bytes"), tmp_path, QUIET)
    counts = {name: (info.documents, info.bytes) for name, info in manifest.splits.items()}
    assert counts == {
        "train": (1024, 3_692_916),
        "dev": (15, 75_617),
        "heldout": (150, 417_459),
    }
    assert manifest.duplicate_documents == 0
