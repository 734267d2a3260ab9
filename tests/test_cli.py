"""The command line: examples, one JSON object, exit codes, one line for each mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.errors import ParbyteError
from parbyte.cli.app import app
from parbyte.cli.entry import crashes_kept_in

COMMANDS = (
    "run",
    "data",
    "train",
    "pack",
    "score",
    "compress",
    "decompress",
    "test",
    "list",
    "audit",
    "prove",
    "compare",
    "seed",
    "inspect",
    "generate",
    "doctor",
)


def test_the_command_table_is_complete() -> None:
    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_shows_an_example_and_the_common_options(
    name: str, say: Callable[..., Any]
) -> None:
    code, out, _ = say(name, "--help")
    assert code == 0
    assert f"Example: parbyte {name}" in out
    assert "--json" in out and "--quiet" in out
    assert "[[" not in out and "--no-" not in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from typer.main import get_command

    (command,) = [c for c in app.registered_commands if c.callback and c.callback.__name__ == name]
    words = shlex.split(str(command.epilog).removeprefix("Example: parbyte "))
    group: Any = get_command(app)
    context = group.commands[name].make_context(name, words[1:])
    assert words[0] == name and context.params


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys\nfrom parbyte.cli import main\nmain(['--help'])\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version_is_one_line(say: Callable[..., Any]) -> None:
    code, out, _ = say("--version")
    assert (code, len(out.splitlines()), out.startswith("parbyte ")) == (0, 1, True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu", "tiny"], "'run'"),
        (["run"], "RECIPE"),
        (["run", "tiny", "--nothing"], "--nothing"),
        (["generate", "m", "--tokens", "many"], "--help"),
        (["compress", "m", "f", "--lanes", "0"], "--help"),
        (["run", "tiny-quik"], "'tiny-quick'"),
        (["run", "tiny", "--set", "train.second=3"], "'seconds'"),
        (["run", "tiny", "--set", "train.seconds=1e9"], "180"),
        (["decompress", "pyproject.toml", "pyproject.toml"], "-o OUT"),
        (["score", "tiny", "pyproject.toml", "--set", "train.seed=1"], "--set"),
        (["score", "tiny", "--lanes", "8"], "--lanes"),
        (["audit", "runs/demo", "--vocab", "9"], "--vocab"),
        (["audit", "runs/demo", "--deep-steps", "9"], "--deep-steps"),
        (["data", "tiny", "--shards", "80"], "--shards"),
        (["data", "fineweb", "--set", "train.seed=1"], "--set"),
        (["doctor", "--set", "train.seed=1"], "--set"),
    ],
)
def test_a_mistake_is_one_line_and_2(words: list[str], hint: str, say: Callable[..., Any]) -> None:
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("parbyte: ") and hint in err


def test_doctor_is_one_json_object(say: Callable[..., Any]) -> None:
    code, out, err = say("doctor", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["machine"]["cores"] >= 1
    assert report["matmul_tflops"]["cpu float32"] > 0
    assert report["attention"] and report["kernels"] and report["recipe"] is None


def test_doctor_says_what_a_recipe_would_reach(say: Callable[..., Any]) -> None:
    small = ["model.model_dim=48", "model.mlp_dim=32", "train.compile=false"]
    small += ["train.device=cpu", "model.loop=[0, 1, 1]", "train.loop_at=0.5", "train.seconds=90"]
    small += ["train.batch_tokens=1024", "train.seq_len=128", "train.threads=1"]
    code, out, _ = say("doctor", "tiny", "--json", *[w for s in small for w in ("--set", s)])
    speed = json.loads(out)["recipe"]
    assert code == 0 and speed["recipe"] == "tiny" and speed["budget"] == "90 s"
    assert speed["tokens_per_second"] > 0 and speed["tokens_per_second_before_loop"] > 0
    assert speed["steps_in_budget"] >= 1


def test_data_fineweb_says_how_a_recipe_names_what_it_fetched(
    say: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parbyte.text import hub

    def fetched(variant: str, folder: Path, num_train_shards: int, **_: Any) -> hub.FinewebFiles:
        assert (variant, num_train_shards) == ("sp1024", 2)
        return hub.FinewebFiles(shards=folder / "shards", tokenizer=folder / "bpe.model")

    monkeypatch.setattr(hub, "download_fineweb", fetched)
    code, out, _ = say("data", "fineweb", "--shards", "2", "--out", tmp_path, "--json")
    assert code == 0
    assert json.loads(out) == {
        "text.corpus": str(tmp_path / "shards"),
        "text.tokenizer_file": str(tmp_path / "bpe.model"),
    }


def test_a_bug_of_ours_is_3_and_its_traceback_is_kept(
    say: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import parbyte.cli.run_commands as commands

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("nothing to divide by")

    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(commands, "run_stages", broken)
    code, out, err = say("run", "tiny", "--out", run)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert str(run / "parbyte-crash.txt") in err
    assert "nothing to divide by" in (run / "parbyte-crash.txt").read_text()


def test_a_kept_traceback_goes_once_a_command_goes_well(tmp_path: Path) -> None:
    (tmp_path / "parbyte-crash.txt").write_text("of a bug long gone")
    with pytest.raises(ParbyteError), crashes_kept_in(tmp_path):
        raise ParbyteError("a mistake of the user's")
    assert (tmp_path / "parbyte-crash.txt").is_file()
    with crashes_kept_in(tmp_path):
        (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError(28, "No space left on device", "/full/file"), "/full/file"),
        (PermissionError(13, "Permission denied", "/closed"), "/closed"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_machine_that_refuses_is_2(
    say: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    hint: str,
) -> None:
    import parbyte.cli.run_commands as commands

    def refused(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(commands, "run_stages", refused)
    code, _, err = say("run", "tiny", "--out", tmp_path / "run")
    assert (code, len(err.splitlines()), hint in err) == (2, 1, True)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    words = [sys.executable, "-m", "parbyte", "doctor"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
