"""A whole run: certified, skipped when run again, and redone exactly where something changed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
STAGES = ("data", "train", "pack", "score", "compress", "prove", "report")


def redone(err: str) -> list[str]:
    return [stage for stage in STAGES if f"{stage}: begins" in err]


def test_a_toy_run_ends_certified_with_every_number_on_its_scorecard(finished: Path) -> None:
    scorecard = json.loads((finished / "run" / "scorecard.json").read_text())
    assert scorecard["certified"] is True
    assert 0 < scorecard["measured_bpb"] < scorecard["coded_bpb"] < 8
    assert scorecard["artifact_bytes"] == (finished / "run" / "model.parbyte").stat().st_size
    assert sum(scorecard["artifact_parts"].values()) == scorecard["artifact_bytes"]
    assert scorecard["artifact_bytes"] <= scorecard["cap_bytes"] == 400_000
    bitstream = finished / "run" / "heldout.pby"
    assert scorecard["coded_bpb"] == 8 * bitstream.stat().st_size / scorecard["text_bytes"]
    assert set(scorecard["stage_seconds"]) == set(STAGES) - {"report"}
    assert scorecard["steps"] == 20 and scorecard["tokens"] == 20 * 512
    assert scorecard["checks"]["decoded_equal"]["passed"]
    agreement = scorecard["checks"]["coded_minus_measured_percent"]
    assert agreement["passed"] and 0.2 < agreement["value"] < agreement["high"]
    assert scorecard["decodes"].startswith("on cpu with 1 thread, in practice this torch (")
    for key in ("seed", "hashes", "hardware", "versions", "encode_tokens_per_second"):
        assert key in scorecard


def test_a_run_leaves_every_file_of_its_folder(finished: Path) -> None:
    names = {path.name for path in (finished / "run").iterdir()}
    assert names >= {
        "recipe.toml",
        "stages.json",
        "data",
        "log.jsonl",
        "weights.safetensors",
        "train.json",
        "model.parbyte",
        "measured.jsonl",
        "heldout.pby",
        "scorecard.json",
        "explanation.json",
        "report.html",
    }


def test_run_again_skips_every_stage(finished: Path, parbyte: Command) -> None:
    before = (finished / "run" / "scorecard.json").read_text()
    answer = parbyte("run", finished / "toy.toml", "--out", finished / "run")
    assert (answer.code, redone(answer.err)) == (0, [])
    assert (finished / "run" / "scorecard.json").read_text() == before
    assert "(coded, 6 lanes)" in answer.out
    assert "\ndecodes on cpu with 1 thread" in answer.out


def test_a_run_folder_is_its_own_recipe(finished: Path, parbyte: Command) -> None:
    answer = parbyte("run", finished / "run", "--json")
    assert (answer.code, redone(answer.err)) == (0, [])
    assert json.loads(answer.out)["certified"] is True


def test_a_changed_quant_does_not_train_again(run: Path, parbyte: Command) -> None:
    # The toy's coder is the quickest; here the best one goes the whole way.
    changes = ("--set", "quant.bits_mlp=3", "--set", 'pack.coders=["mix"]')
    answer = parbyte("run", run, *changes)
    assert (answer.code, redone(answer.err)) == (0, list(STAGES[2:]))


def test_a_damaged_file_is_made_again_and_nothing_else(run: Path, parbyte: Command) -> None:
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    answer = parbyte("run", run)
    assert answer.code == 0
    # The same steps give the same weights, so nothing behind training has to be done again.
    assert redone(answer.err) == ["train", "report"]
    assert "'weights.safetensors' is missing or damaged" in answer.err


def test_a_changed_codec_only_scores_and_codes_again(run: Path, parbyte: Command) -> None:
    answer = parbyte("run", run, "--set", "codec.lanes=4")
    assert (answer.code, redone(answer.err)) == (0, list(STAGES[3:]))


def test_a_changed_corpus_starts_from_the_text(toy: Path, parbyte: Command) -> None:
    run = toy.parent / "run"
    assert parbyte("data", toy, "--out", run).code == 0
    corpus = toy.parent / "corpus.txt"
    corpus.write_bytes(corpus.read_bytes() + b"\n\nA new end.\n")
    answer = parbyte("data", toy, "--out", run)
    assert redone(answer.err) == ["data"]


def test_each_command_stops_at_its_stage_and_the_next_goes_on(toy: Path, parbyte: Command) -> None:
    run = toy.parent / "run"
    for number, command in enumerate(("data", "train", "pack")):
        answer = parbyte(command, toy, "--out", run, "--json")
        assert (answer.code, redone(answer.err)) == (0, [STAGES[number]])
        assert json.loads(answer.out)["stage"] == command
    answer = parbyte("score", run, "--json")
    assert (answer.code, redone(answer.err)) == (0, ["score"])
    assert json.loads(answer.out)["measured_bpb"] < 8
    answer = parbyte("prove", run, "--json")
    assert (answer.code, redone(answer.err)) == (0, ["compress", "prove"])
    assert json.loads(answer.out)["certified"] is True


def test_a_damaged_bitstream_is_not_proven_and_the_scorecard_says_so(
    run: Path, parbyte: Command
) -> None:
    bitstream = run / "heldout.pby"
    whole = bitstream.read_bytes()
    bitstream.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    answer = parbyte("prove", run)
    assert answer.code == 1
    assert "certified no" in answer.out and "damaged" in answer.out
    assert "not decoded back" in answer.out
    assert not (run / "restored.txt").exists()
    scorecard = json.loads((run / "scorecard.json").read_text())
    assert scorecard["certified"] is False and scorecard["reason"]


def test_prove_takes_the_files_as_they_stand_and_tells_its_verdict_without_a_report(
    run: Path, parbyte: Command
) -> None:
    (run / "explanation.json").unlink()
    answer = parbyte("prove", run)
    assert (answer.code, redone(answer.err)) == (0, ["prove", "report"])
    model = run / "model.parbyte"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    answer = parbyte("prove", run, "--json")
    assert answer.code == 1 and "report: left out: " in answer.err
    assert "damaged" in json.loads(answer.out)["reason"]


def test_a_book_of_another_version_is_refused_with_a_remedy(run: Path, parbyte: Command) -> None:
    book = run / "stages.json"
    stages = json.loads(book.read_text())
    del stages["stages"]["compress"]["outputs"]["heldout.pby"]
    book.write_text(json.dumps(stages))
    answer = parbyte("prove", run)
    assert answer.code == 2 and "no 'heldout.pby'" in answer.complaint


@pytest.mark.parametrize(("file", "place"), [("model.parbyte", 7), ("heldout.pby", 4)])
def test_a_run_that_another_version_reads_is_left_as_it_was(
    run: Path, parbyte: Command, file: str, place: int
) -> None:
    whole = (run / file).read_bytes()
    (run / file).write_bytes(whole[:place] + b"\x09" + whole[place + 1 :])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    answer = parbyte("prove", run)
    assert (answer.code, answer.out) == (2, "")
    assert file in answer.complaint and "this p" in answer.complaint
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_another_text_of_the_same_length_is_not_proven(run: Path, parbyte: Command) -> None:
    manifest = run / "data" / "manifest.json"
    splits = json.loads(manifest.read_text())["splits"]
    wrong = manifest.read_text().replace(splits["heldout"]["sha256_text"], "0" * 64)
    manifest.write_text(wrong)
    answer = parbyte("prove", run, "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["reason"] == (
        "the decoded text has another SHA-256 than the original"
    )


def test_the_artifact_of_a_run_compresses_and_restores_any_file(
    finished: Path, parbyte: Command, tmp_path: Path
) -> None:
    source = tmp_path / "notes.txt"
    source.write_bytes(b"In the beginning was the Word.\r\n\x00\xff " * 8)
    model = finished / "run" / "model.parbyte"
    answer = parbyte("compress", model, source, "--threads", "1", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["out"] == str(source) + ".pby"
    answer = parbyte("decompress", model, tmp_path / "notes.txt.pby", "-o", tmp_path / "back")
    assert answer.code == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    answer = parbyte("score", model, source, "--threads", "1", "--json")
    result = json.loads(answer.out)
    assert result["bytes"] == source.stat().st_size
    assert 0 < result["measured_bpb"] < 10


def test_score_explains_what_each_stage_is_worth(
    finished: Path, tmp_path: Path, parbyte: Command
) -> None:
    source = tmp_path / "letter.txt"
    source.write_bytes(b"And the evening and the morning were the first day. " * 20)
    answer = parbyte("score", finished / "run", source, "--explain", "--json")
    result = json.loads(answer.out)
    (network,) = result["stages"]
    assert network["name"] == "network" and network["bpb"] == pytest.approx(result["measured_bpb"])
    assert len(result["pieces"]) == len(result["bits"][0]) == 400
    assert "explanation.json" in parbyte("score", finished / "run", "--explain").complaint


def test_inspect_and_generate_show_what_is_in_the_artifact(
    finished: Path, parbyte: Command
) -> None:
    answer = parbyte("inspect", finished / "run", "--json")
    contents = json.loads(answer.out)
    assert sum(contents["parts"].values()) == contents["bytes"]
    assert "total" in parbyte("inspect", finished / "run").out
    answer = parbyte("generate", finished / "run", "--prompt", "In the", "--tokens", "9")
    assert answer.code == 0
    assert answer.out.startswith("In the")


def test_an_empty_file_survives_compression(
    finished: Path, parbyte: Command, tmp_path: Path
) -> None:
    source = tmp_path / "empty.txt"
    source.touch()
    assert parbyte("compress", finished / "run", source, "--threads", "1").code == 0
    back = tmp_path / "back.txt"
    assert parbyte("decompress", finished / "run", f"{source}.pby", "-o", back).code == 0
    assert back.read_bytes() == b""


def test_two_files_that_do_not_belong_together_are_refused(
    finished: Path, run: Path, parbyte: Command, tmp_path: Path
) -> None:
    assert parbyte("pack", run, "--set", "quant.bits_mlp=3", "--quiet").code == 0
    out = tmp_path / "out.txt"
    answer = parbyte("decompress", run, finished / "run" / "heldout.pby", "-o", out)
    assert (answer.code, "another model" in answer.complaint) == (2, True)
    assert not out.exists()


@pytest.mark.slow
def test_two_ranks_train_one_model(toy: Path) -> None:
    run = toy.parent / "run"
    words = ["--standalone", "--nproc-per-node", "2", "-m", "parbyte", "train", str(toy)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "--out", str(run), "--json"],
        capture_output=True,
        check=True,
        text=True,
    )
    figures = json.loads(done.stdout)
    assert (figures["ranks"], figures["steps"], figures["tokens"]) == (2, 20, 20 * 512)
    assert (run / "weights.safetensors").is_file()
