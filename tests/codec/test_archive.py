"""Archives restore what went in; damage to one frame is named and costs that frame alone."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.codec.conftest import letters

from parbyte.base.errors import BitstreamError, DataError
from parbyte.base.log import Console
from parbyte.codec import methods as methods_module
from parbyte.codec.archive import ArchiveResult, Sink, compress_entries, read_archive
from parbyte.codec.config import CodecConfig
from parbyte.codec.crew import Crew
from parbyte.codec.methods import Methods
from parbyte.codec.pieces import Entry
from parbyte.codec.record import Slot, Source
from parbyte.codec.restore import compress_path, examine, list_archive, restore
from parbyte.codec.salvage import find_slots, read_document, salvage
from parbyte.pack.artifact import Artifact

QUIET = Console(quiet=True)
CONFIG = CodecConfig(lanes=2, frame_bytes=64, threads=1)
NAMES = st.text("abcd.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))


def pack(artifact: Artifact, entries: list[Entry], config: CodecConfig = CONFIG) -> bytes:
    stream = io.BytesIO()
    done = compress_entries(artifact, config, entries, stream, QUIET)
    assert done.bitstream_bytes == len(stream.getvalue())
    return stream.getvalue()


def test_the_model_codes_what_it_knows_and_each_frame_decodes_alone(
    letters_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [letters(200, seed) for seed in range(3)]
    monkeypatch.setattr(methods_module, "_zstd", lambda text: text)
    monkeypatch.setattr(methods_module, "_SAMPLE_BYTES", 1 << 30)
    data = pack(
        letters_artifact, [Entry([text]) for text in texts], replace(CONFIG, frame_bytes=200)
    )
    coded = list(read_archive(Source(io.BytesIO(data))))
    assert [frame.head.kind for frame in coded] == [2, 2, 2]
    methods = Methods(letters_artifact, QUIET)
    assert [methods.decode(f.head, f.payload) for f in reversed(coded)] == texts[::-1]
    assert methods.tokens == 600


def test_frames_whose_lanes_take_turns_decode(
    letters_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = letters(500)
    monkeypatch.setattr(methods_module, "_zstd", lambda text: text)
    data = pack(letters_artifact, [Entry([text])], replace(CONFIG, turns=2, frame_bytes=1 << 20))
    (coded,) = read_archive(Source(io.BytesIO(data)))
    assert (coded.head.kind, coded.payload[:5]) == (2, b"PBYB\x04")
    assert Methods(letters_artifact, QUIET).decode(coded.head, coded.payload) == text


def test_where_the_model_would_win_it_is_found_by_itself(letters_artifact: Artifact) -> None:
    data = pack(letters_artifact, [Entry([letters(6_000)])], CodecConfig(lanes=8, threads=1))
    assert [frame.head.kind for frame in read_archive(Source(io.BytesIO(data)))] == [2]
    assert len(data) < 6_000 / 4 * 1.03 + 160


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=5),
    frame_bytes=st.integers(1, 150),
    mode=st.sampled_from([0o644, 0o755, 0o600, 0o400]),
)
def test_any_folder_survives(
    artifact_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    frame_bytes: int,
    mode: int,
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "empty").mkdir()
    for name, data in files.items():
        path = folder / "in" / "deep" / name
        path.write_bytes(data)
        path.chmod(mode)
    config = replace(CONFIG, frame_bytes=frame_bytes)
    done, left_out = compress_path(artifact_path, folder / "in", folder / "a.pby", config, QUIET)
    assert (done.documents, left_out) == (len(files) + 2, [])
    restore(artifact_path, folder / "a.pby", folder / "out", QUIET)
    found = {path.name: path.read_bytes() for path in (folder / "out" / "deep").iterdir()}
    assert found == files
    assert {p.stat().st_mode & 0o777 for p in (folder / "out" / "deep").iterdir()} == {mode}
    assert (folder / "out" / "empty").is_dir()
    listed = [item for item in list_archive(folder / "a.pby") if not item.is_folder]
    assert [(i.name.decode(), i.size) for i in listed] == sorted(
        (f"deep/{name}", len(data)) for name, data in files.items()
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=120), max_size=6), st.integers(1, 150))
def test_every_document_is_found_by_its_number(
    artifact: Artifact, documents: list[bytes], frame_bytes: int
) -> None:
    entries = [Entry([document[:7], document[7:]]) for document in documents]
    data = pack(artifact, entries, replace(CONFIG, frame_bytes=frame_bytes))
    for number, document in enumerate(documents):
        out = io.BytesIO()
        read_document(Crew(artifact, QUIET), Source(io.BytesIO(data)), number, Sink(out))
        assert out.getvalue() == document
    with pytest.raises(DataError, match="no document"):
        read_document(Crew(artifact, QUIET), Source(io.BytesIO(data)), len(documents), Sink())


def test_a_document_is_decoded_without_the_other_frames(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pack(artifact, [Entry([bytes([65 + i]) * 60]) for i in range(9)])
    decoded: list[int] = []
    decode = Methods.decode

    def watched(self: Methods, head: "object", payload: bytes) -> bytes:
        decoded.append(head.number)  # type: ignore[attr-defined]
        return decode(self, head, payload)  # type: ignore[arg-type]

    monkeypatch.setattr(Methods, "decode", watched)
    out = io.BytesIO()
    read_document(Crew(artifact, QUIET), Source(io.BytesIO(data)), 4, Sink(out))
    assert (out.getvalue(), decoded) == (b"E" * 60, [4])


class OnlyForwards(io.RawIOBase):
    """A pipe: it cannot be sought in and gives odd amounts."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: "bytearray") -> int:  # type: ignore[override]
        block = self._stream.read(min(len(buffer), 977))
        buffer[: len(block)] = block
        return len(block)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_pipes_survive(artifact_path: Path, data: bytes, is_salvage: bool) -> None:
    packed, back = io.BytesIO(), io.BytesIO()
    source = io.BufferedReader(OnlyForwards(data))
    compress_path(artifact_path, source, packed, replace(CONFIG, frame_bytes=500), QUIET)
    pipe = io.BufferedReader(OnlyForwards(packed.getvalue()))
    _, losses = restore(artifact_path, pipe, back, QUIET, is_salvage=is_salvage)
    assert (back.getvalue(), losses) == (data, [])


@pytest.mark.parametrize("size", [0, 1, 20, 256, 300, 4096, 5000, 70_000])
@pytest.mark.parametrize("make", [os.urandom, lambda n: (bytes(range(256)) * (n // 256 + 1))[:n]])
def test_no_file_grows_by_more_than_the_bar(
    artifact: Artifact, size: int, make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods_module, "_SAMPLE_BYTES", 256)
    monkeypatch.setattr(methods_module, "_PROBED_BYTES", 4096)
    data = pack(artifact, [Entry([make(size)])], CodecConfig(threads=1))
    assert len(data) <= size + size // 1000 + 64


def frames_touched(slots: Sequence[Slot], place: int) -> list[int]:
    return [i for i, s in enumerate(slots) if s.offset <= place < s.offset + s.record_bytes]


def test_every_damaged_byte_is_noticed_and_costs_its_frame_alone(
    artifact: Artifact, artifact_path: Path, tmp_path: Path
) -> None:
    texts = [os.urandom(60), b"light " * 10, b"", os.urandom(50), b"a"]
    config = replace(CONFIG, frame_bytes=60)
    entries = [Entry([text], b"f%d" % i, 0o644) for i, text in enumerate(texts)]
    data = pack(artifact, entries, config)
    crew = Crew(artifact, QUIET)
    layout = [len(frame.pieces) for frame in read_archive(Source(io.BytesIO(data)))]
    numbers = iter(range(len(texts)))
    of_document = {i: [next(numbers) for _ in range(n)] for i, n in enumerate(layout)}
    _, slots = find_slots(Source(io.BytesIO(data)))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(BitstreamError):
            list(read_archive(Source(io.BytesIO(bytes(damaged)))))
        touched = frames_touched(slots, place)
        gone = {number for frame in touched for number in of_document[frame]}
        out = io.BytesIO()
        source = Source(io.BytesIO(bytes(damaged)))
        losses = salvage(crew, source, Sink(out), ArchiveResult())
        rest = b"".join(text for i, text in enumerate(texts) if i not in gone)
        assert losses and out.getvalue() == rest, place
    (tmp_path / "x.pby").write_bytes(data)
    assert examine(artifact_path, tmp_path / "x.pby", QUIET)[1] == []


@pytest.mark.slow
def test_every_damaged_byte_of_4_kb_is_noticed_and_costs_its_frame_alone(
    artifact: Artifact,
) -> None:
    text = os.urandom(4096)
    data = pack(artifact, [Entry([text])], replace(CONFIG, frame_bytes=2048))
    crew, damaged = Crew(artifact, QUIET), bytearray(data)
    _, slots = find_slots(Source(io.BytesIO(data)))
    frames = [text[slot.start : slot.start + slot.text_bytes] for slot in slots]
    for place in range(len(data)):
        damaged[place] ^= 1 << place % 8
        with pytest.raises(BitstreamError):
            list(read_archive(Source(io.BytesIO(damaged))))
        out = io.BytesIO()
        losses = salvage(crew, Source(io.BytesIO(damaged)), Sink(out), ArchiveResult())
        touched = frames_touched(slots, place)
        rest = b"".join(frame for i, frame in enumerate(frames) if i not in touched)
        assert losses and out.getvalue() == rest, place
        damaged[place] = data[place]


def test_every_cut_is_noticed_and_the_frames_before_it_are_saved(artifact: Artifact) -> None:
    texts = [os.urandom(60) for _ in range(4)]
    data = pack(artifact, [Entry([text]) for text in texts])
    _, slots = find_slots(Source(io.BytesIO(data)))
    for length in range(len(data)):
        cut = data[:length]
        with pytest.raises(BitstreamError):
            list(read_archive(Source(io.BytesIO(cut))))
        out = io.BytesIO()
        losses = salvage(Crew(artifact, QUIET), Source(io.BytesIO(cut)), Sink(out), ArchiveResult())
        whole = sum(slot.offset + slot.record_bytes <= length for slot in slots)
        assert losses and out.getvalue() == b"".join(texts[:whole]), length


def test_an_error_says_which_bytes_of_the_text_are_affected(
    artifact: Artifact, artifact_path: Path, tmp_path: Path
) -> None:
    data = bytearray(pack(artifact, [Entry([os.urandom(60)]) for _ in range(3)]))
    _, slots = find_slots(Source(io.BytesIO(bytes(data))))
    data[slots[2].offset - 3] ^= 4
    (tmp_path / "x.pby").write_bytes(data)
    with pytest.raises(BitstreamError, match=r"x\.pby.*byte 60 on"):
        restore(artifact_path, tmp_path / "x.pby", tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()
    _, losses = restore(artifact_path, tmp_path / "x.pby", tmp_path / "out", QUIET, is_salvage=True)
    assert [(loss.start, loss.stop) for loss in losses] == [(60, 120)]
    assert (tmp_path / "out").stat().st_size == 120


def test_frames_cannot_be_exchanged_dropped_or_doubled(artifact: Artifact) -> None:
    data = pack(artifact, [Entry([os.urandom(60)]) for _ in range(3)])
    other = pack(artifact, [Entry([os.urandom(60)]) for _ in range(3)])
    _, slots = find_slots(Source(io.BytesIO(data)))
    bounds = [slot.offset for slot in slots] + [slots[-1].offset + slots[-1].record_bytes]
    begin, one, two, three, end = (
        data[: bounds[0]],
        *(data[a:b] for a, b in pairwise(bounds)),
        data[bounds[-1] :],
    )
    foreign = other[bounds[1] : bounds[2]]
    for parts in ([two, one, three], [one, two], [one, one, two, three], [one, foreign, three]):
        with pytest.raises(BitstreamError):
            list(read_archive(Source(io.BytesIO(begin + b"".join(parts) + end))))
    with pytest.raises(BitstreamError, match="stand behind"):
        list(read_archive(Source(io.BytesIO(data + b"x"))))


def test_the_bytes_are_part_of_the_format(artifact: Artifact) -> None:
    expected = (
        "5042594202b5504600000003000a037f89540800011ba403046e616d6534bd2ea3000102b55046ff01030001070000"
        "0000001f030134bd2ea3fd04492419000000"
    )
    assert pack(artifact, [Entry([b"\x00\x01\x02"], b"name", 0o644)]).hex() == expected


def test_an_archive_decodes_where_its_model_does_or_anywhere_without_one(
    letters_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, threads=3, device="cpu", frame_bytes=1 << 20)

    def where(artifact: Artifact) -> tuple[int, str]:
        done = compress_entries(artifact, config, [Entry([letters(300)])], io.BytesIO(), QUIET)
        return done.frames["model"], done.decodes

    assert where(letters_artifact) == (0, "anywhere")
    monkeypatch.setattr(methods_module, "_zstd", lambda text: text)
    version = torch.__version__
    on_torch = f"on cpu with 3 threads, in practice this torch ({version})"
    assert where(letters_artifact) == (1, on_torch)
    portable = {**letters_artifact.predict, "engine": "portable"}
    assert where(replace(letters_artifact, predict=portable)) == (1, "anywhere")
