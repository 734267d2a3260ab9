"""General-purpose compressors are measured on the same bytes, and may be stored, not believed."""

import bz2
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from parbyte.base.log import Console
from parbyte.report import baselines
from parbyte.report.baselines import Baseline, load_or_measure, measure_baselines

QUIET = Console(quiet=True)
WORDS = b"in the beginning was the word and the word was with light upon the deep ".split()


def prose(seed: int, num_words: int) -> bytes:
    return b" ".join(WORDS[(seed + i * i * 7 + i // 3) % len(WORDS)] for i in range(num_words))


def by_name(text: bytes, training: list[bytes]) -> dict[str, Baseline]:
    return {result.name: result for result in measure_baselines(text, training, QUIET)}


def test_sizes_are_those_of_the_compressors_themselves() -> None:
    text = prose(1, 3000)
    found = by_name(text, [])
    assert found["xz -9e"].compressed_bytes == len(lzma.compress(text, preset=9 | 1 << 31))
    assert found["bzip2 -9"].compressed_bytes == len(bz2.compress(text, 9))
    assert {"zstd -22", "brotli -11"} <= found.keys()


def test_bits_per_byte_count_the_compressed_text_alone() -> None:
    result = Baseline(
        name="x", compressed_bytes=100, text_bytes=400, shared_bytes=10**6, seconds=0.1
    )
    assert result.bpb == 2.0


def test_training_text_helps_and_is_reported_as_shared() -> None:
    text, training = prose(1, 3000), [prose(seed, 3000) for seed in range(1, 40)]
    found = by_name(text, training)
    given = found["zstd -22, given the training text"]
    assert given.compressed_bytes < found["zstd -22"].compressed_bytes / 2
    assert given.shared_bytes == sum(map(len, training))
    assert 0 < found["zstd -22, trained dictionary"].shared_bytes <= 112_640
    assert found["zstd -22"].shared_bytes == 0


def test_without_training_text_only_the_plain_compressors_run() -> None:
    assert all(result.shared_bytes == 0 for result in by_name(prose(1, 100), []).values())


def test_too_little_training_text_for_a_dictionary_is_no_failure() -> None:
    names = by_name(prose(1, 100), [b"short"]).keys()
    assert "zstd -22, trained dictionary" not in names
    assert "zstd -22, given the training text" in names


@pytest.mark.parametrize("text", [b"x", b"\x00\xff" * 50])
def test_tiny_and_binary_texts_are_compressed_too(text: bytes) -> None:
    assert all(result.text_bytes == len(text) for result in by_name(text, [b"ab"]).values())


def test_an_empty_text_has_no_baselines() -> None:
    assert measure_baselines(b"", [b"abc"], QUIET) == []


def test_long_texts_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_TEXT_BYTES", 1000)
    monkeypatch.setattr(baselines, "MAX_TRAINING_BYTES", 1500)
    read = 0

    def training() -> Iterator[bytes]:
        nonlocal read
        for seed in range(100):
            read += 1
            yield prose(seed, 200)[:600]

    found = {r.name: r for r in measure_baselines(prose(1, 3000), training(), QUIET)}
    assert all(result.text_bytes == 1000 for result in found.values())
    assert found["zstd -22, given the training text"].shared_bytes == 1500
    assert read == 3, "a long training text must not be read to its end"


def test_stored_baselines_are_used_only_for_the_same_text(tmp_path: Path) -> None:
    path, text = tmp_path / "baselines.json", prose(1, 500)
    asked: list[str] = []

    def training() -> list[bytes]:
        asked.append("training")
        return [prose(2, 500)]

    first = load_or_measure(path, text, training, QUIET)
    assert load_or_measure(path, text, training, QUIET) == first and len(asked) == 1
    load_or_measure(path, text + b"!", training, QUIET)
    assert len(asked) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "null"])
def test_a_damaged_store_only_costs_time(tmp_path: Path, damage: str) -> None:
    path, text = tmp_path / "baselines.json", prose(1, 200)
    first = load_or_measure(path, text, list, QUIET)
    path.write_text(damage)
    again = load_or_measure(path, text, list, QUIET)
    assert [r.compressed_bytes for r in again] == [r.compressed_bytes for r in first]
    assert json.loads(path.read_text())["results"]
