"""Ledgers keep every bit of their sums on disk and refuse damaged files."""

import math
from pathlib import Path

import pytest

from parbyte.base.errors import DataError
from parbyte.score.ledger import DocumentScore, Ledger, ledger_of, read_ledger, write_ledger

DOCUMENTS = [DocumentScore(3, 12, 0.1), DocumentScore(0, 0, 0.0), DocumentScore(7, 20, math.pi)]


def test_a_ledger_survives_the_disk(tmp_path: Path) -> None:
    ledger = ledger_of("measured", DOCUMENTS)
    write_ledger(tmp_path / "measured.jsonl", ledger)
    assert read_ledger(tmp_path / "measured.jsonl") == ledger


def test_sums_and_bits_per_byte() -> None:
    ledger = ledger_of("measured", DOCUMENTS)
    assert (ledger.num_tokens, ledger.num_bytes) == (10, 32)
    assert ledger.bpb == pytest.approx((0.1 + math.pi) / math.log(2) / 32, rel=1e-12)
    assert Ledger("coded", 1.0, 0, 0).bpb == math.inf


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "no json", '{"kind": "guessed", "nats": 1, "num_bytes": 1}']
)
def test_foreign_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"is no ledger"):
        read_ledger(path)


def test_a_ledger_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write_ledger(path, ledger_of("measured", DOCUMENTS))
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"is no ledger"):
        read_ledger(path)


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        read_ledger(tmp_path / "nowhere.jsonl")
