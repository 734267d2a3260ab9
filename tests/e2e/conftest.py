"""A toy recipe on a 60 KB corpus: every stage for real, in seconds."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from parbyte.cli import main
from parbyte.text.builtin import kjv_chapters

CORPUS_BYTES = 60_000
TOY = """
track = "tiny"
[text]
corpus = "{corpus}"
documents = "paragraphs"
tokenizer = "bytes"
[model]
num_layers = 1
model_dim = 32
num_heads = 2
num_kv_heads = 1
mlp_dim = 64
rope_dims = 8
[train]
steps = 20
batch_tokens = 512
seq_len = 64
dev_tokens = 1024
checkpoint_seconds = 0
device = "cpu"
threads = 1
[pack]
fit = true
coders = ["range"]
[predict]
window = 64
stride = 32
[codec]
lanes = 6
threads = 1
"""


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what was wrong; fails if there is none, or more than one."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("parbyte: ")]
        assert "Traceback" not in self.err
        return line


Command = Callable[..., Answer]


@pytest.fixture(scope="session")
def corpus_text() -> bytes:
    chapters = b"\n".join(kjv_chapters())[:CORPUS_BYTES]
    return chapters.replace(b"\n", b"\n\n")


@pytest.fixture(scope="session")
def make_toy(corpus_text: bytes) -> Callable[[Path], Path]:
    """Return a function that writes a toy recipe, with its corpus beside it, into a folder."""

    def write(folder: Path) -> Path:
        corpus = folder / "corpus.txt"
        corpus.write_bytes(corpus_text)
        recipe = folder / "toy.toml"
        recipe.write_text(TOY.format(corpus=corpus))
        return recipe

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[[Path], Path]) -> Path:
    """Return a folder with a toy recipe and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = make_toy(folder)
    assert main(["run", str(recipe), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


@pytest.fixture
def toy(tmp_path: Path, make_toy: Callable[[Path], Path]) -> Path:
    """Return the path of a toy recipe."""
    return make_toy(tmp_path)


@pytest.fixture
def parbyte(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs one command in this process."""

    def command(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        words: Sequence[str] = [str(argument) for argument in arguments]
        code = main(words)
        printed = capfd.readouterr()
        return Answer(code, printed.out, printed.err)

    return command
