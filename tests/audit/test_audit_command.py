"""`parbyte audit`: certified artifacts end with 0, everything else with 1, wrong options with 2."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parbyte.cli import main
from parbyte.model.config import ModelConfig

SHAPE = {"model_dim": 16, "num_heads": 2, "num_kv_heads": 2, "mlp_dim": 24, "rope_dims": 4}
PEEKING = """
import json, sys
for line in sys.stdin:
    tokens = json.loads(line)["tokens"]
    print(json.dumps({"nats": [0.01 * sum(tokens)] * len(tokens)}), flush=True)
"""


@pytest.fixture
def artifact(tmp_path: Path, pack_toy: Callable[..., bytes]) -> Path:
    config = ModelConfig(vocab_size=257, bos_id=256, **SHAPE)
    data = pack_toy(config, {"window": 16, "stride": 8, "engine": "torch"})
    path = tmp_path / "model.parbyte"
    path.write_bytes(data)
    return path


def test_an_honest_artifact_is_certified(
    artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.txt"
    text.write_bytes(b"It was the best of times, it was the worst of times.\n" * 6)
    options = ["--text", str(text), "--noise", "300", "--json", "--quiet"]
    code = main(["audit", str(artifact), *options])
    verdict = json.loads(capfd.readouterr().out)
    assert [f for f in verdict["findings"] if f["severity"] != "note"] == []
    assert (code, verdict["verdict"]) == (0, "certified")
    made = {check["check"] for check in verdict["checks"]}
    assert made == {f"T{n}" for n in range(1, 13)} - {"T5"}


def test_a_text_without_bytes_is_refused(
    artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    assert main(["audit", str(artifact), "--text", str(tmp_path / "empty")]) == 2
    assert "'" + str(tmp_path / "empty") + "' is empty" in capfd.readouterr().err


def test_a_command_that_peeks_is_invalid(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "score.py"
    script.write_text(PEEKING)
    options = ["--command", f"{sys.executable} {script}", "--vocab", "16", "--noise", "300"]
    code = main(["audit", *options, "--quiet"])
    out = capfd.readouterr().out
    assert code == 1
    assert "verdict invalid" in out and "T1 violation" in out and "not tested" in out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "give one of"),
        (["x", "--command", "y"], "give one of"),
        (["--command", "y"], "--vocab"),
        (["--command", "y", "--vocab", "9", "--bos", "9"], "--bos"),
        (["--scorer", "json:loads", "--vocab", "9", "--text", "z"], "needs a tokenizer"),
        (["/no/such/model.parbyte"], "no artifact"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *options, "--quiet"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert complaint in line
