"""A run folder as the pipeline leaves it, made in a moment: real data, invented figures."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.log import Console
from parbyte.score.ledger import DocumentScore, ledger_of, write_ledger
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare

WORDS = "in the beginning was light and the word went over deep waters, day and night,"
NUM_DOCUMENTS = 60


def _write_corpus(path: Path) -> None:
    dice = random.Random(1)
    documents = (" ".join(dice.choices(WORDS.split(), k=120)) + "." for _ in range(NUM_DOCUMENTS))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))


def _train_log() -> str:
    lines = []
    for second in range(1, 181):
        loss = 3.8 + 4.5 * math.exp(-second / 20) + 0.05 * math.sin(second * 7.0)
        dev_bpb = 1.2 + math.exp(-second / 20) if second % 60 == 0 else None
        line = {"step": 4 * second, "seconds": float(second), "loss": loss, "lr": 0.02}
        lines.append(json.dumps({**line, "tokens_per_s": 9100.0, "dev_bpb": dev_bpb}))
    return "\n".join(lines) + "\n"


def _scorecard(text_bytes: int) -> dict[str, Any]:
    bitstream_bytes = text_bytes // 5
    coded = 8 * bitstream_bytes / text_bytes
    return {
        "certified": True,
        "within_track": True,
        "reason": "",
        "coded_bpb": coded,
        "measured_bpb": coded / 1.0007,
        "text_bytes": text_bytes,
        "text_tokens": text_bytes // 4,
        "bitstream_bytes": bitstream_bytes,
        "artifact_bytes": 398_112,
        "cap_bytes": 400_000,
        "artifact_parts": {"weights": 379_000, "tokenizer": 17_000, "header": 2_112},
        "recipe": "toy",
        "track": "tiny",
        "corpus": "corpus.jsonl",
        "tokenizer": "bytes",
        "vocab_size": 257,
        "dev_in_training": False,
        "seed": 1234,
        "lanes": 8,
        "parameters": 849_879,
        "steps": 720,
        "tokens": 1_474_560,
        "tokens_per_second": 9102.3,
        "train_seconds": 180.1,
        "dev_bpb": 1.2,
        "measured_tokens_per_second": 8000.0,
        "encode_tokens_per_second": 3000.0,
        "decode_tokens_per_second": 2900.0,
        "stage_seconds": {
            "data": 4.2,
            "train": 183.9,
            "pack": 6.5,
            "score": 11.0,
            "compress": 31.0,
            "prove": 35.2,
        },
        "peak_memory_bytes": 900 << 20,
        "checks": {
            "decoded_equal": {"passed": True, "text_sha256": "ab" * 32, "text_bytes": text_bytes},
            "fits_cap": {"passed": True, "value": 398_112, "limit": 400_000},
            "coded_minus_measured_percent": {
                "passed": True,
                "value": 0.07,
                "low": -0.01,
                "high": 0.2,
            },
            "train_seconds": {"passed": True, "value": 180.1, "limit": 180.3},
            "track_corpus": {"passed": True, "value": "kjv", "want": "kjv"},
        },
        "hashes": {"recipe": "cd" * 32, "artifact": "ef" * 32, "bitstream": "01" * 32},
        "hardware": {"cpu": "Example <CPU>", "cores": 2, "memory_bytes": 8 << 30},
        "versions": {"python": "3.11.7", "parbyte": "0.1.0", "torch": "2.13.0"},
        "notes": ["the held-out text repeats nothing of the training text"],
    }


def _explanation() -> dict[str, Any]:
    stage = {"seconds": 1.5, "state_bytes": 1 << 20}
    return {
        "stages": [
            {"name": "network", "bpb": 1.7, **stage},
            {"name": "mix <of experts>", "bpb": 1.6, **stage},
        ],
        "pieces": ["In", " the", " <b>"],
        "bits": [[9.0, 1.0, 4.0], [6.0, 1.1, 4.0]],
    }


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    _write_corpus(folder / "corpus.jsonl")
    config = TextConfig(corpus=str(folder / "corpus.jsonl"), tokenizer="bytes")
    prepare(config, folder / "data", Console(quiet=True))
    return folder / "data"


@pytest.fixture
def make_run(tmp_path: Path, prepared: Path) -> Callable[..., Path]:
    """Return a function that writes a run folder, with some scorecard values replaced."""

    def make(**changes: Any) -> Path:
        run = tmp_path / "demo"
        run.mkdir(exist_ok=True)
        if not (run / "data").exists():
            (run / "data").symlink_to(prepared)
        text_bytes = (prepared / "heldout.txt").stat().st_size
        card = {**_scorecard(text_bytes), **changes}
        (run / "scorecard.json").write_text(json.dumps(card))
        stages = {
            name: {"seconds": seconds, "peak_memory_bytes": 700 << 20, "figures": {}}
            for name, seconds in card["stage_seconds"].items()
        }
        if "data" in stages:
            stages["data"]["figures"] = {"train_bytes": 30_000, "train_tokens": 30_050}
        (run / "stages.json").write_text(json.dumps({"format": 1, "stages": stages}))
        (run / "log.jsonl").write_text(_train_log())
        (run / "recipe.toml").write_text('name = "toy"  # file\n')
        dice = random.Random(2)
        lengths = [text_bytes // 8] * 7 + [text_bytes - 7 * (text_bytes // 8)]
        scores = [DocumentScore(n // 4, n, n * dice.uniform(0.9, 1.3)) for n in lengths]
        write_ledger(run / "measured.jsonl", ledger_of("measured", scores))
        (run / "explanation.json").write_text(json.dumps(_explanation()))
        return run

    return make
