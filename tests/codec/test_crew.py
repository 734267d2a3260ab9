"""Frames side by side: the same bytes for any number of jobs, few in memory, a clean end."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from tests.codec.conftest import letters

from parbyte.base.errors import BitstreamError
from parbyte.base.log import Console
from parbyte.codec import methods as methods_module
from parbyte.codec.archive import ArchiveResult, Sink, compress_entries, decode_into, read_archive
from parbyte.codec.config import CodecConfig
from parbyte.codec.crew import Crew
from parbyte.codec.methods import Methods
from parbyte.codec.pieces import Entry
from parbyte.codec.record import Source
from parbyte.codec.salvage import read_document, salvage
from parbyte.pack.artifact import Artifact

QUIET = Console(quiet=True)
CONFIG = CodecConfig(lanes=2, frame_bytes=200, threads=1)
TEXTS = [letters(500, seed) for seed in range(3)]


@pytest.fixture
def portable(letters_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """A model of the portable engine that codes every frame."""
    monkeypatch.setattr(methods_module, "_zstd", lambda text: text)
    monkeypatch.setattr(methods_module, "_SAMPLE_BYTES", 1 << 30)
    return replace(letters_artifact, predict={**letters_artifact.predict, "engine": "portable"})


def archive(artifact: Artifact, jobs: int) -> tuple[bytes, ArchiveResult]:
    stream = io.BytesIO()
    entries = [Entry([text]) for text in TEXTS]
    done = compress_entries(artifact, CONFIG, entries, stream, QUIET, jobs)
    return stream.getvalue(), done


def test_any_number_of_jobs_gives_the_same_bytes_and_text(portable: Artifact) -> None:
    data, done = archive(portable, 1)
    assert done.frames["model"] == 9
    for jobs in (2, 5):
        again, other = archive(portable, jobs)
        assert again == data
        assert (other.tokens, other.frames) == (done.tokens, done.frames)
        assert other.nats == pytest.approx(done.nats, rel=1e-12)
        crew, out = Crew(portable, QUIET, jobs), io.BytesIO()
        decode_into(crew, read_archive(Source(io.BytesIO(data))), Sink(out), ArchiveResult())
        assert out.getvalue() == b"".join(TEXTS)
        out = io.BytesIO()
        assert salvage(crew, Source(io.BytesIO(data)), Sink(out), ArchiveResult()) == []
        assert out.getvalue() == b"".join(TEXTS)
        out = io.BytesIO()
        read_document(crew, Source(io.BytesIO(data)), 1, Sink(out))
        assert out.getvalue() == TEXTS[1]


def test_frames_before_the_damage_come_out_first(portable: Artifact) -> None:
    data = bytearray(archive(portable, 2)[0])
    data[len(data) * 2 // 3] ^= 4
    written = []
    for jobs in (1, 3):
        out = io.BytesIO()
        frames = read_archive(Source(io.BytesIO(data)))
        with pytest.raises(BitstreamError, match="from byte"):
            decode_into(Crew(portable, QUIET, jobs), frames, Sink(out), ArchiveResult())
        written.append(out.getvalue())
    assert written[0] == written[1] == b"".join(TEXTS)[: len(written[0])] != b""


def test_no_more_items_are_taken_than_there_are_workers(portable: Artifact) -> None:
    taken, given = [], []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    with closing(Crew(portable, QUIET, 3).map(lambda _, item: item * item, items())) as squares:
        for square in squares:
            given.append(square)
            assert len(taken) - len(given) < 3
    assert given == [item * item for item in range(20)]


def test_each_worker_has_one_frame_at_a_time(portable: Artifact) -> None:
    busy: set[int] = set()
    both = threading.Barrier(2, timeout=30)

    def work(worker: Methods, item: int) -> int:
        assert id(worker) not in busy
        busy.add(id(worker))
        both.wait()  # two frames are under way at once
        busy.remove(id(worker))
        return item

    assert list(Crew(portable, QUIET, 2).map(work, range(8))) == list(range(8))


def test_a_closed_map_stops_frames_that_have_begun(portable: Artifact) -> None:
    begun = threading.Semaphore(0)

    def endless(worker: Methods, item: int) -> int:
        if item == 0:
            begun.acquire()
            return item
        with worker._console.progress("code", 1.0) as progress:
            begun.release()
            while True:
                progress.update(0.5)

    threads = threading.active_count()
    frames = Crew(portable, QUIET, 2).map(endless, range(9))
    assert next(frames) == 0
    frames.close()
    assert threading.active_count() == threads


def test_an_interrupt_ends_frames_that_would_take_long(portable: Artifact) -> None:
    entries = [Entry([letters(1_000_000)])]
    config = CodecConfig(lanes=1, frame_bytes=500_000, threads=1)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        compress_entries(portable, config, entries, io.BytesIO(), QUIET, 2)
    assert not [t for t in threading.enumerate() if t.name.startswith("parbyte-frame")]


def test_an_error_in_a_frame_ends_it(portable: Artifact) -> None:
    def fail(worker: Methods, item: int) -> int:
        if item == 3:
            raise BitstreamError("the third")
        return item

    frames = Crew(portable, QUIET, 2).map(fail, range(9))
    with pytest.raises(BitstreamError, match="the third"):
        list(frames)


def test_the_torch_engine_works_alone(letters_artifact: Artifact) -> None:
    assert len(Crew(letters_artifact, QUIET, 4)._workers) == 1
