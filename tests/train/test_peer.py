"""A script of the contest is given what it reads: shards, their tokenizer, its settings."""

import sys
from pathlib import Path

import pytest
from benchmarks.train import run_peer

from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare

SCRIPT = """
import glob, os, pathlib
import numpy as np
import sentencepiece
processor = sentencepiece.SentencePieceProcessor(model_file=os.environ["TOKENIZER_PATH"])
assert os.environ["TOKENIZER_PATH"].endswith(".model")
assert processor.vocab_size() == int(os.environ["VOCAB_SIZE"]) == 300
for split in ("train", "val"):
    (name,) = glob.glob(os.path.join(os.environ["DATA_PATH"], f"fineweb_{split}_*.bin"))
    header = np.fromfile(name, "<i4", 256)
    assert header[0] == 20240520 and header[1] == 1
    ids = np.fromfile(name, "<u2", offset=1024)
    assert len(ids) == header[2] and ids.max() < 300
    pathlib.Path(os.environ["SEEN"], split).write_text(processor.decode(ids.tolist()))
print("train_batch_tokens:1000 iterations:2")
print("step:1/2 train_time:900ms step_avg:900.00ms")
print("step:2/2 train_time:1000ms step_avg:500.00ms")
"""


def prepared(folder: Path, tokenizer: str) -> Path:
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"The {n}th verse says: let there be light.\n\n" for n in range(400)))
    config = TextConfig(corpus=str(corpus), tokenizer=tokenizer, vocab_size=300)
    prepare(config, folder / "data", Console(quiet=True))
    return folder / "data"


def test_a_script_reads_shards_and_tokenizer_and_its_last_speed_counts(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text(SCRIPT)
    data = prepared(tmp_path, "sentencepiece")
    found = run_peer(script, [f"SEEN={tmp_path}"], data)
    assert found["tokens_per_second"] == 2000 and found["step_ms"] == 500.0
    seen = (tmp_path / "train").read_text() + (tmp_path / "val").read_text()
    assert "The 0th verse says: let there be light." in seen


def test_a_script_that_fails_is_shown_with_its_reason(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text("raise SystemExit('CUDA is required')")
    with pytest.raises(SystemExit, match="CUDA is required"):
        run_peer(script, [], prepared(tmp_path, "sentencepiece"))


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="tokenizer 'words', scripts read SentencePiece's"):
        run_peer(Path(sys.executable), [], prepared(tmp_path, "words"))
