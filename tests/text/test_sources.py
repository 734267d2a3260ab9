"""Every kind of file streams the same documents, and a bad one is named."""

import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import DataError
from parbyte.text.config import TextConfig
from parbyte.text.sources import open_corpus, split_paragraphs

TEXTS = ["first\n\nwith two paragraphs", "", "zweites Dokument: ß", "third"]


def documents(path: Path, rule: str = "auto") -> list[bytes]:
    corpus = open_corpus(TextConfig(corpus=str(path), documents=rule))
    found = list(corpus.documents())
    assert found == list(corpus.documents()), "a corpus can be read again"
    return found


def json_lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"id": 7, "text": text}).encode() + b"\n" for text in texts)


def test_a_text_file_is_one_document_but_the_only_one_falls_into_paragraphs(
    tmp_path: Path,
) -> None:
    text = b"one\r\n\r\ntwo\xff\x00"
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.zst").write_bytes(zstandard.compress(text))
    assert documents(tmp_path / "a.txt", "file") == [text]
    for name in ("a.txt", "a.zst"):
        assert documents(tmp_path / name) == [b"one\r\n\r\n", b"two\xff\x00"]
        summary = open_corpus(TextConfig(corpus=str(tmp_path / name))).describe()
        assert summary.endswith(
            "1 file, documents: paragraphs, as the one file would be one document"
        )
    assert documents(tmp_path) == [text, text]


def test_a_text_file_falls_into_paragraphs_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n one\nstill one\n\n \t\ntwo\r\n\r\nthree")
    assert documents(tmp_path / "a.txt", "paragraphs") == [
        b"\n one\nstill one\n\n \t\n",
        b"two\r\n\r\n",
        b"three",
    ]


@given(
    st.lists(st.sampled_from([b"a\n", b"\n", b" \r\n", b"bc\n", b"\x0c\n", b"x y\n"])), st.binary()
)
def test_paragraphs_join_to_the_same_bytes_and_each_begins_one_run_of_text(
    lines: list[bytes], last: bytes
) -> None:
    lines = [*lines, last] if last else lines
    found = list(split_paragraphs(lines))
    assert b"".join(found) == b"".join(lines)
    assert all(found)
    for paragraph in found[1:]:
        assert paragraph.split(b"\n")[0].strip()


def test_json_lines_are_one_document_each_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS) + b"\n  \n")
    assert documents(tmp_path / "a.jsonl") == [text.encode() for text in TEXTS if text]
    corpus = open_corpus(TextConfig(corpus=str(tmp_path / "a.jsonl")))
    assert list(corpus.read()) == [text.encode() for text in TEXTS]


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_zstd_holds_the_same_documents_also_in_frames_and_with_a_long_window(
    tmp_path: Path, kind: str
) -> None:
    plain = b"plain \xff text\n\nof two" if kind == "txt" else json_lines(TEXTS)
    half = len(plain) // 2
    (tmp_path / f"a.{kind}").write_bytes(plain)
    frames = zstandard.compress(plain[:half]) + zstandard.compress(plain[half:])
    suffix = "zst" if kind == "txt" else "jsonl.zst"
    (tmp_path / f"frames.{suffix}").write_bytes(frames)
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    (tmp_path / f"long.{suffix}").write_bytes(packer.compress(plain) + packer.flush())
    expected = documents(tmp_path / f"a.{kind}")
    assert documents(tmp_path / f"frames.{suffix}") == expected
    assert documents(tmp_path / f"long.{suffix}") == expected


def test_lines_longer_than_a_read_block_stay_whole(tmp_path: Path) -> None:
    texts = ["x" * 3_000_000, "short", "y" * 1_048_576]
    (tmp_path / "a.jsonl").write_bytes(json_lines(texts))
    assert [len(document) for document in documents(tmp_path / "a.jsonl")] == [3_000_000, 5, 2**20]


def test_a_folder_is_read_in_the_order_of_names_and_other_files_are_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "b.txt").write_bytes(b"from b")
    (tmp_path / "a.jsonl").write_bytes(json_lines(["from a"]))
    (tmp_path / "README.md").write_bytes(b"about")
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(b"from c"))
    assert documents(tmp_path) == [b"from a", b"from b", b"from c"]
    summary = open_corpus(TextConfig(corpus=str(tmp_path))).describe()
    assert summary.endswith("3 files, documents: files and JSON lines")


def test_the_built_in_book_needs_no_path() -> None:
    corpus = open_corpus(TextConfig())
    assert "1,189 chapters" in corpus.describe()
    assert next(corpus.documents()).startswith(b"\nIn the beginning")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": 3}', "line 2 is no JSON object with a string under 'text'"),
        (b'{"body": "x"}', "line 2 is no JSON object with a string under 'text'"),
        (b'["text"]', "line 2 is no JSON object with a string under 'text'"),
        (b'{"text": "x"', "line 2 is no JSON: "),
        (b'{"text": "\xff"}', "line 2 is not UTF-8: invalid start byte"),
        (b'{"text": "\\ud800"}', "line 2 is not UTF-8: surrogates not allowed"),
        (b"[" * 100_000, "line 2 is no JSON: "),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(["good"]) + line + b"\n")
    with pytest.raises(DataError, match=message):
        documents(tmp_path / "a.jsonl")


def test_a_cut_zstd_file_is_refused_not_read_short(tmp_path: Path) -> None:
    packed = zstandard.compress(bytes(range(256)) * 4000)
    (tmp_path / "a.zst").write_bytes(packed[:-3])
    with pytest.raises(DataError, match="cut short"):
        documents(tmp_path / "a.zst")


@pytest.mark.parametrize("packed", [b"no zstd at all", zstandard.compress(b"text") + b"junk"])
def test_a_foreign_zstd_file_is_refused(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "a.zst").write_bytes(packed)
    with pytest.raises(DataError, match="no whole zstd file"):
        documents(tmp_path / "a.zst")


def test_a_missing_path_an_unknown_kind_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_corpus(TextConfig(corpus=str(tmp_path / "missing.txt")))
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(DataError, match=r"unknown kind; known are \.zst, \.txt, \.jsonl"):
        open_corpus(TextConfig(corpus=str(tmp_path / "a.pdf")))
    with pytest.raises(DataError, match="holds no text"):
        open_corpus(TextConfig(corpus=str(tmp_path)))
