"""Contest shards are used in place, their split is checked, and nothing of them is changed."""

import io
import json
import os
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from parbyte.base.errors import DataError
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.contest import (
    SHARD_TOKENS,
    VAL_BYTES,
    VAL_DOCUMENTS,
    ContestShards,
    find_contest_shards,
    find_notes,
)
from parbyte.text.manifest import SplitInfo, load_manifest
from parbyte.text.official import OfficialTokenizer
from parbyte.text.prepare import load_run_tokenizer, prepare, split_documents
from parbyte.text.sentencepiece_model import parse_model
from parbyte.text.shards import ShardWriter, open_shards

QUIET = Console(quiet=True)
TRAIN = [f"Training document {index} says one thing.".encode() for index in range(40)]
VAL = [
    f"And validation {index} says another, of {index * index} words.".encode() for index in range(9)
]


@pytest.fixture(scope="module")
def model() -> bytes:
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(document.decode() for document in TRAIN * 5),
        model_writer=output,
        model_type="bpe",
        normalization_rule_name="identity",
        vocab_size=320,
        byte_fallback=True,
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return output.getvalue()


class Contest:
    """A folder of contest shards made from documents, and the recipe that reads it."""

    def __init__(self, root: Path, model: bytes) -> None:
        self.folder = root / "fineweb10B_sp320"
        self.folder.mkdir()
        self.model_file = root / "sp320.model"
        self.model_file.write_bytes(model)
        self.tokenizer = OfficialTokenizer(parse_model(model))

    def write(self, split: str, documents: list[bytes], shard_tokens: int = 200) -> list[Path]:
        made = self.folder / "made"
        with ShardWriter(made, "part", shard_tokens) as writer:
            for document in documents:
                writer.append(np.array([1], np.uint16))
                writer.append(self.tokenizer.encode(document))
        paths = [self.folder / f"fineweb_{split}_{i:06d}.bin" for i in range(len(writer.paths))]
        for source, path in zip(writer.paths, paths, strict=True):
            source.rename(path)
        made.rmdir()
        return paths

    def config(self, **changes) -> TextConfig:
        settings = {
            "corpus": str(self.folder),
            "tokenizer": "official",
            "tokenizer_file": str(self.model_file),
            **changes,
        }
        return TextConfig(**settings)


@pytest.fixture
def contest(tmp_path: Path, model: bytes) -> Contest:
    return Contest(tmp_path, model)


def read_splits(folder: Path) -> dict[str, list[bytes]]:
    tokenizer = load_run_tokenizer(folder)
    names = [name for name, info in load_manifest(folder).splits.items() if info.documents]
    return {
        name: [tokenizer.decode(ids) for ids in split_documents(folder, name, tokenizer)]
        for name in names
    }


def test_shards_are_linked_and_the_development_tail_is_cut_off(
    contest: Contest, tmp_path: Path
) -> None:
    train, val = contest.write("train", TRAIN), contest.write("val", VAL)
    before = {path: path.read_bytes() for path in [*train, *val]}
    manifest = prepare(contest.config(), tmp_path / "data", QUIET)
    splits = read_splits(tmp_path / "data")
    assert splits["train"] + splits["dev"] == TRAIN
    assert splits["heldout"] == VAL
    assert {path: path.read_bytes() for path in [*train, *val]} == before
    links = {
        name for name in os.listdir(tmp_path / "data") if (tmp_path / "data" / name).is_symlink()
    }
    assert links == set(manifest.sources)
    assert len(links) == len(train) + len(val) - 1, "only the last training shard is written anew"
    for name, source in manifest.sources.items():
        assert (tmp_path / "data" / name).read_bytes() == Path(source).read_bytes()


def test_the_manifest_counts_and_hashes_what_is_linked(contest: Contest, tmp_path: Path) -> None:
    contest.write("train", TRAIN)
    contest.write("val", VAL)
    manifest = prepare(contest.config(), tmp_path / "data", QUIET)
    assert load_manifest(tmp_path / "data") == manifest
    for name, info in manifest.splits.items():
        assert info.tokens == len(open_shards(tmp_path / "data", name))
        for shard, digest in info.shards.items():
            assert sha256((tmp_path / "data" / shard).read_bytes()).hexdigest() == digest
    heldout = b"".join(VAL)
    assert (tmp_path / "data" / "heldout.txt").read_bytes() == heldout
    assert manifest.splits["heldout"].bytes == len(heldout)
    assert manifest.splits["heldout"].sha256_text == sha256(heldout).hexdigest()
    assert manifest.splits["heldout"].documents == len(VAL)
    assert manifest.splits["train"].documents + manifest.splits["dev"].documents == len(TRAIN)
    assert any("validation has 9 documents, the contest's has 50,000" in n for n in manifest.notes)
    assert any("an unknown export" in note for note in manifest.notes)
    assert any("a private export" in note for note in manifest.notes)


@pytest.mark.parametrize("changes", [{"dev_in_training": True}, {"dev_fraction": 0.0}])
def test_training_on_everything_links_everything(
    contest: Contest, tmp_path: Path, changes: dict
) -> None:
    train, val = contest.write("train", TRAIN), contest.write("val", VAL)
    manifest = prepare(contest.config(**changes), tmp_path / "data", QUIET)
    assert len(manifest.sources) == len(train) + len(val)
    assert read_splits(tmp_path / "data")["train"] == TRAIN


def test_preparing_again_never_touches_the_linked_files(contest: Contest, tmp_path: Path) -> None:
    train = contest.write("train", TRAIN)
    contest.write("val", VAL)
    for _ in range(2):
        prepare(contest.config(), tmp_path / "data", QUIET)
    assert all(path.is_file() for path in train)


def test_byte_counts_beside_validation_shards_are_no_tokens(
    contest: Contest, tmp_path: Path
) -> None:
    contest.write("train", TRAIN)
    (val,) = contest.write("val", VAL, shard_tokens=10_000)
    ids = open_tokens(val)
    counts = contest.tokenizer.byte_counts(ids).astype(np.uint16)
    with ShardWriter(contest.folder, "fineweb_val_bytes", 10_000) as writer:
        writer.append(counts)
    manifest = prepare(contest.config(), tmp_path / "data", QUIET)
    assert read_splits(tmp_path / "data")["heldout"] == VAL
    total = len(b"".join(VAL))
    assert any(f"sum to {total}, the decoded text has {total} bytes" in n for n in manifest.notes)
    writer.paths[0].unlink()
    with ShardWriter(contest.folder, "fineweb_val_bytes", 10_000) as writer:
        writer.append(counts[:-1])
    with pytest.raises(DataError, match="fetch both from one export"):
        prepare(contest.config(), tmp_path / "data", QUIET)


def open_tokens(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[1024:], "<u2")


def test_validation_documents_in_the_training_shards_are_refused(
    contest: Contest, tmp_path: Path
) -> None:
    contest.write("train", TRAIN[:20] + VAL[2:] + TRAIN[20:])
    contest.write("val", VAL)
    with pytest.raises(DataError, match=r"held-out bytes also stand in .*\(7 of 9 documents\)"):
        prepare(contest.config(), tmp_path / "data", QUIET)
    assert os.listdir(tmp_path / "data") == []


def test_a_few_repeats_are_counted(contest: Contest, tmp_path: Path) -> None:
    contest.write("train", [*TRAIN[:20], VAL[3], *TRAIN[20:]])
    contest.write("val", VAL)
    manifest = prepare(contest.config(), tmp_path / "data", QUIET)
    assert (manifest.duplicate_documents, manifest.duplicate_bytes) == (1, len(VAL[3]))


def test_shards_of_another_tokenizer_are_refused(contest: Contest, tmp_path: Path) -> None:
    (train, *_) = contest.write("train", TRAIN)
    contest.write("val", VAL)
    data = bytearray(train.read_bytes())
    data[1026:1028] = (5000).to_bytes(2, "little")
    train.write_bytes(data)
    with pytest.raises(DataError, match=r"train_000000.bin' holds token 5,000, the vocabulary"):
        prepare(contest.config(), tmp_path / "data", QUIET)
    data[1024:1028] = bytes([7, 0, 8, 0])
    train.write_bytes(data)
    with pytest.raises(DataError, match=r"train_000000.bin' does not start with BOS \(1\)"):
        prepare(contest.config(), tmp_path / "data", QUIET)


def test_a_cut_shard_is_refused(contest: Contest, tmp_path: Path) -> None:
    contest.write("train", TRAIN)
    (*_, last) = contest.write("val", VAL)
    last.write_bytes(last.read_bytes()[:-2])
    with pytest.raises(DataError, match="damaged"):
        prepare(contest.config(), tmp_path / "data", QUIET)


def test_an_empty_shard_is_refused(contest: Contest, tmp_path: Path) -> None:
    contest.write("train", TRAIN)
    (*_, last) = contest.write("val", VAL)
    header = np.zeros(256, "<i4")
    header[:2] = (20240520, 1)
    last.write_bytes(header.tobytes())
    with pytest.raises(DataError, match="holds no tokens"):
        prepare(contest.config(), tmp_path / "data", QUIET)


def test_missing_parts_say_what_to_do(contest: Contest, tmp_path: Path) -> None:
    contest.write("train", TRAIN)
    with pytest.raises(DataError, match=r"holds no '\*_val_\*.bin' shards; fetch them too"):
        find_contest_shards(contest.config())
    contest.write("val", VAL)
    with pytest.raises(DataError, match=r"leave 'text\.heldout' empty"):
        find_contest_shards(contest.config(heldout="kjv"))
    with pytest.raises(DataError, match=r"holds finished tokens: set text\.tokenizer"):
        prepare(contest.config(tokenizer="words"), tmp_path / "data", QUIET)


def test_a_development_slice_may_reach_over_several_shards(
    contest: Contest, tmp_path: Path
) -> None:
    train = contest.write("train", TRAIN, shard_tokens=30)
    contest.write("val", VAL)
    manifest = prepare(contest.config(dev_fraction=0.3), tmp_path / "data", QUIET)
    splits = read_splits(tmp_path / "data")
    assert splits["train"] + splits["dev"] == TRAIN
    assert 10 <= len(splits["dev"]) <= 12
    assert len(manifest.splits["train"].shards) < len(train) - 1


def test_a_training_stream_without_a_border_cannot_give_development_text(
    contest: Contest, tmp_path: Path
) -> None:
    contest.write("train", TRAIN[:1])
    contest.write("val", VAL)
    with pytest.raises(DataError, match=r"set text\.dev_fraction = 0"):
        prepare(contest.config(), tmp_path / "data", QUIET)
    prepare(contest.config(dev_fraction=0.0), tmp_path / "data", QUIET)


def test_text_corpora_are_not_taken_for_shards(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}))
    assert find_contest_shards(TextConfig(corpus=str(tmp_path))) is None
    assert find_contest_shards(TextConfig(corpus=str(tmp_path / "a.jsonl"))) is None
    assert find_contest_shards(TextConfig()) is None


@pytest.mark.parametrize(
    ("tokens", "documents", "num_bytes", "note"),
    [
        (62_021_846, VAL_DOCUMENTS, VAL_BYTES - 20, "62,021,632 positions .*: sp1024$"),
        (47_853_344, VAL_DOCUMENTS, VAL_BYTES, "sp8192 with case operators$"),
        (9_662_500, 10_000, 30_000_000, "10,000 documents only"),
        (62_021_846, VAL_DOCUMENTS, 176_332_748, "stands for 176,332,748 bytes"),
    ],
)
def test_known_exports_and_known_faults_are_named(
    tmp_path: Path, tokens: int, documents: int, num_bytes: int, note: str
) -> None:
    shards = ContestShards(folder=tmp_path, train=(), val=(), val_bytes=())
    heldout = SplitInfo(documents=documents, tokens=tokens, bytes=num_bytes, shards={})
    notes = find_notes(shards, heldout)
    assert any(re.search(note, line) for line in notes)
    assert SHARD_TOKENS == 10**8
