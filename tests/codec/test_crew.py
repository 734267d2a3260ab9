"""Frames side by side: the same bytes for any number of jobs, few in memory, a clean end."""

import io
from pathlib import Path

import pytest
from tests.codec.conftest import write_toy_artifact

from parbyte.base.log import Console
from parbyte.codec.archive import compress_entries
from parbyte.codec.config import CodecConfig
from parbyte.codec.methods import Methods
from parbyte.codec.pieces import Entry
from parbyte.pack.artifact import Artifact, load_artifact

QUIET = Console(quiet=True)
CONFIG = CodecConfig(lanes=2, frame_bytes=400, threads=1)
TEXT = b"In the beginning God created the heaven and the earth.\n" * 60


@pytest.fixture(scope="module")
def portable_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "model.parbyte"
    return write_toy_artifact(path, seed=0, engine="portable")


@pytest.fixture(scope="module")
def portable(portable_path: Path) -> Artifact:
    return load_artifact(portable_path)


@pytest.fixture(autouse=True)
def _model_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never wins: let zstd win nothing, so that every frame goes through it."""
    monkeypatch.setattr("parbyte.codec.methods._zstd", lambda text: text + b"longer" * len(text))
    monkeypatch.setattr("parbyte.codec.methods.STORED", -1)
    encode = Methods._code

    def padded(self: Methods, texts: list[bytes], config: CodecConfig) -> tuple[bytes, int, float]:
        return encode(self, texts, config)

    monkeypatch.setattr(Methods, "_code", padded)


def archive(artifact: Artifact, jobs: int) -> bytes:
    stream = io.BytesIO()
    compress_entries(artifact, CONFIG, [Entry([TEXT])], stream, QUIET, jobs)
    return stream.getvalue()
