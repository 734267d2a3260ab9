"""Cuts fall on the nearest border, and no split that is on stays empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError
from parbyte.text.config import TextConfig
from parbyte.text.sources import Corpus
from parbyte.text.splits import assign_splits, measure_corpus, plan_splits, split_corpus


def split_lengths(lengths: list[int], config: TextConfig) -> dict[str, list[int]]:
    documents = [bytes(length) for length in lengths]
    corpus = Corpus(name="made", summary="", read=lambda: iter(documents))
    plan = plan_splits(measure_corpus(corpus), config)
    found: dict[str, list[int]] = {}
    for split, document in assign_splits(plan, documents):
        found.setdefault(split, []).append(len(document))
    return found


@given(
    lengths=st.lists(st.integers(1, 60), min_size=3, max_size=40),
    heldout=st.floats(0.01, 0.9),
    dev=st.floats(0.01, 0.5),
)
def test_every_document_has_one_split_in_order_and_none_is_empty(
    lengths: list[int], heldout: float, dev: float
) -> None:
    found = split_lengths(lengths, TextConfig(heldout_fraction=heldout, dev_fraction=dev))
    assert list(found) == ["train", "dev", "heldout"]
    assert found["train"] + found["dev"] + found["heldout"] == lengths


@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=60), heldout=st.floats(0.05, 0.8))
def test_the_held_out_part_starts_at_the_border_nearest_to_its_share(
    lengths: list[int], heldout: float
) -> None:
    found = split_lengths(lengths, TextConfig(heldout_fraction=heldout, dev_fraction=0))
    total = sum(lengths)
    cut = total - round(heldout * total)
    borders = [sum(lengths[:index]) for index in range(1, len(lengths))]
    nearest = min(abs(border - cut) for border in borders)
    assert abs(sum(found["train"]) - cut) == nearest


def test_shares_hold_on_many_small_documents() -> None:
    found = split_lengths([10] * 1000, TextConfig())
    assert {split: len(lengths) for split, lengths in found.items()} == {
        "train": 882,
        "dev": 18,
        "heldout": 100,
    }


def test_long_last_documents_still_leave_one_for_each_split() -> None:
    assert split_lengths([80, 9, 5, 6], TextConfig()) == {
        "train": [80, 9],
        "dev": [5],
        "heldout": [6],
    }
    assert split_lengths([1, 1, 98], TextConfig()) == {"train": [1], "dev": [1], "heldout": [98]}


def test_a_held_out_corpus_of_its_own_leaves_the_corpus_whole(tmp_path) -> None:
    (tmp_path / "heldout.jsonl").write_bytes(b'{"text": "held out"}\n{"text": ""}\n')
    config = TextConfig(heldout=str(tmp_path / "heldout.jsonl"), dev_fraction=0)
    documents = [b"a", b"", b"bcd"]
    corpus = Corpus(name="made", summary="", read=lambda: iter(documents))
    text = split_corpus(corpus, config)
    assert list(text.labelled()) == [("train", b"a"), ("train", b"bcd"), ("heldout", b"held out")]
    assert (text.num_bytes, text.num_empty) == (12, 2)


def test_training_documents_leave_out_dev_and_heldout() -> None:
    documents = [bytes([65 + index]) * 10 for index in range(20)]
    corpus = Corpus(name="made", summary="", read=lambda: iter(documents))
    text = split_corpus(corpus, TextConfig(dev_fraction=0.1))
    assert list(text.training_documents(with_dev=False)) == documents[:16]
    assert list(text.training_documents(with_dev=True)) == documents[:18]


def test_too_few_documents_say_what_to_do() -> None:
    with pytest.raises(DataError, match=r"has 1 document, 3 are needed .*\"paragraphs\", add file"):
        split_lengths([100], TextConfig())
    with pytest.raises(DataError, match=r"1 document, 2 are needed \(training, held-out\)"):
        split_lengths([100], TextConfig(dev_fraction=0))


def test_an_empty_corpus_and_no_held_out_text_are_refused() -> None:
    with pytest.raises(DataError, match="corpus 'made' is empty: 2 documents without text"):
        split_lengths([0, 0], TextConfig())
    with pytest.raises(DataError, match="nothing is held out"):
        split_lengths([1, 1, 1], TextConfig(heldout_fraction=0))
