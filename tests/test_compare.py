"""`parbyte compare`: keys that differ, each run's numbers, and no comparison of unlike texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Say

from parbyte.recipe import load_recipe, recipe_to_toml

MakeRun = Callable[..., Path]
CARD = {
    "certified": True,
    "within_track": True,
    "coded_bpb": 1.5,
    "measured_bpb": 1.49,
    "dev_bpb": 1.6,
    "artifact_bytes": 399_000,
    "steps": 1_200,
    "train_seconds": 180.04,
    "text_bytes": 5_000,
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder: overrides of `tiny`, figures of its scorecard."""

    def make(name: str, *overrides: str, text: str = "ab", decoded: bool = True, **figures: Any):
        run, recipe = tmp_path / name, load_recipe("tiny", overrides)
        run.mkdir()
        (run / "recipe.toml").write_text(recipe_to_toml(recipe))
        checks = {"decoded_equal": {"passed": decoded}}
        hashes = {"text": text, "recipe": recipe.sha256()}
        card = {**CARD, "checks": checks, "hashes": hashes, **figures}
        (run / "scorecard.json").write_text(json.dumps(card))
        return run

    return make


def test_keys_that_differ_stand_beside_what_each_run_came_to(make_run: MakeRun, say: Say) -> None:
    old = make_run("old")
    new = make_run("new", "train.seed=77", "codec.lanes=3", coded_bpb=1.4, within_track=False)
    code, out, err = say("compare", old, new)
    lanes, seed = load_recipe("tiny").codec.lanes, load_recipe("tiny").train.seed
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"run {old} -> {new}",
        f"train.seed {seed} -> 77",
        f"codec.lanes {lanes} -> 3",
        f"coded bpb 1.5000 -> 1.4000 (best: {new})",
        "measured bpb 1.4900 -> 1.4900",
        "dev bpb 1.6000 -> 1.6000",
        "artifact bytes 399,000 -> 399,000",
        "steps 1,200 -> 1,200",
        "train seconds 180.0 -> 180.0",
        "certified yes -> yes",
        "within the track yes -> no",
    ]


def test_a_stage_that_only_one_stack_has_is_shown_key_by_key(make_run: MakeRun, say: Say) -> None:
    one = make_run("one", 'predict.stack=[{ kind = "ngram", order = 5 }]')
    both = make_run(
        "both", 'predict.stack=[{ kind = "ngram", order = 2 }, { kind = "sse" }]', dev_bpb=None
    )
    code, out, _ = say("compare", one, both, one, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["recipe"]["predict.stack[0].order"] == [5, 2, 5]
    assert result["recipe"]["predict.stack[1].kind"] == [None, "sse", None]
    assert "predict.stack[0].kind" not in result["recipe"]
    assert [run["dev_bpb"] for run in result["runs"]] == [1.6, None, 1.6]


def test_what_was_not_decoded_is_not_coded_and_only_certified_runs_are_best(
    make_run: MakeRun, say: Say
) -> None:
    failed = make_run("failed", decoded=False, certified=False, coded_bpb=1.1)
    large = make_run("large", certified=False, coded_bpb=1.2)
    good = make_run("good")
    code, out, _ = say("compare", failed, large, good)
    assert code == 0
    assert "recipe the same" in out
    assert f"coded bpb none -> 1.2000 -> 1.5000 (best: {good})" in out
    assert "best: none is certified" in say("compare", failed, large)[1]


def test_a_recipe_that_changed_behind_the_scorecard_is_told(make_run: MakeRun, say: Say) -> None:
    old, new = make_run("old"), make_run("new")
    (new / "recipe.toml").write_text(recipe_to_toml(load_recipe("tiny", ["train.seed=5"])))
    code, _, err = say("compare", old, new)
    assert (code, err.startswith("note: "), str(new) in err) == (0, True, True)


def test_what_cannot_be_compared_is_one_line_and_2(make_run: MakeRun, say: Say) -> None:
    run, other = make_run("run"), make_run("other", text="cd", text_bytes=6_000)
    bare, broken = make_run("bare"), make_run("broken")
    (bare / "scorecard.json").unlink()
    (broken / "scorecard.json").write_text('{"certified": true}')
    for words, hint in (
        ((run,), "two or more"),
        ((run, other), "5,000 and 6,000 bytes"),
        ((run, bare), f"do `parbyte run {bare}` first"),
        ((run, broken), "'coded_bpb'"),
        ((run, run.parent), "no run folder"),
    ):
        code, out, err = say("compare", *words)
        assert (code, out, len(err.splitlines()), hint in err) == (2, "", 1, True), err
