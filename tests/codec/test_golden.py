"""The portable engine's bits of another machine: they decode here, and come out again."""

import platform
from pathlib import Path

import pytest

from parbyte.base.log import Console
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.config import CodecConfig

GOLDEN = Path(__file__).parent / "golden"
MODEL, TEXT, STREAM = GOLDEN / "model.parbyte", GOLDEN / "text.txt", GOLDEN / "text.pby"


@pytest.mark.slow
def test_a_bitstream_of_another_machine_decodes_here(tmp_path: Path) -> None:
    back = tmp_path / "back"
    decompress_file(MODEL, STREAM, back, Console(quiet=True))
    assert back.read_bytes() == TEXT.read_bytes(), platform.processor()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine_writes_the_bitstream_of_another(tmp_path: Path, threads: int) -> None:
    made = tmp_path / "made.pby"
    compress_file(MODEL, TEXT, made, CodecConfig(lanes=3, threads=threads), Console(quiet=True))
    assert made.read_bytes() == STREAM.read_bytes(), platform.processor()
