"""The ladder of PR 1430 on a toy run: convicted, repaired, resumed, and never unmarked."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parbyte.seed import climb

pytestmark = pytest.mark.slow

Command = Callable[..., Any]
RUNGS = ["float", "packed", "sliding", "+ TTT", "+ SLOT", "+ n-gram"]
NAMED = [[], [], ["C4"], ["C3", "C4"], ["C1", "C3"], ["C2"]]
"""What legality.md says that each rung breaks."""
EXCERPT = ("--excerpt", "1024")
OVERHEAD_BYTES = 200
"""Header, hashes and the ends of lanes: what a bitstream of any length pays."""


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[[Path], Path]) -> Path:
    """Return a toy run with its finished ladder."""
    from parbyte.cli import main

    folder = tmp_path_factory.mktemp("climbed")
    words = ["seed", str(make_toy(folder)), "--out", str(folder / "run"), *EXCERPT, "--quiet"]
    assert main(words) == 0
    return folder / "run"


@pytest.fixture(scope="module", autouse=True)
def _quick_audit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick = replace(climb.AUDIT, noise_tokens=1024, likely=16, drawn=16)
        patch.setattr(climb, "AUDIT", quick)
        yield


@pytest.fixture
def ladder(climbed: Path) -> dict[str, Any]:
    return json.loads((climbed / "seed" / "ladder.json").read_text())


@pytest.fixture
def run(climbed: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(climbed, tmp_path / climbed.name))


def test_every_illegal_rung_is_convicted_of_what_it_breaks(ladder: dict[str, Any]) -> None:
    assert [rung["name"] for rung in ladder["rungs"]] == RUNGS
    assert [rung["conditions"] for rung in ladder["rungs"]] == NAMED
    assert [rung["verdict"] for rung in ladder["rungs"]] == ["not proven"] * 2 + ["invalid"] * 4
    for rung in ladder["rungs"]:
        assert [one["condition"] for one in rung["evidence"]] == rung["conditions"]
        assert all(one["check"] and one["evidence"] for one in rung["evidence"])
    assert ladder["all_convicted"] is True


def test_every_repaired_rung_is_decoded_and_certified(
    climbed: Path, ladder: dict[str, Any]
) -> None:
    for rung in ladder["rungs"]:
        assert rung["twin_verdict"] == "certified", rung["twin_findings"]
        assert rung["coded_bpb"] == 8 * rung["bitstream_bytes"] / ladder["text"]["bytes"]
        measured_bytes = rung["measured_bpb"] * ladder["text"]["bytes"] / 8
        assert 0 < rung["bitstream_bytes"] - measured_bytes < OVERHEAD_BYTES
    assert ladder["all_certified"] is True
    assert len(list((climbed / "seed" / "rungs").glob("*.pby"))) == len(RUNGS)


def test_twins_learn_at_the_rate_that_was_best_on_development_text(
    climbed: Path, ladder: dict[str, Any]
) -> None:
    from parbyte.pack.artifact import load_artifact

    best = min(ladder["ttt"]["rates"], key=lambda rate: rate["measured_bpb"])
    assert ladder["ttt"]["stage"]["lr"] == pytest.approx(best["share"] * 5e-4)
    for name in ("ttt", "n-gram"):
        artifact = load_artifact(climbed / "seed" / "rungs" / f"{name}.parbyte")
        stage = artifact.predict["stack"][0]
        assert {key: stage[key] for key in ladder["ttt"]["stage"]} == ladder["ttt"]["stage"]


def test_honest_rungs_claim_what_their_twins_measure(ladder: dict[str, Any]) -> None:
    for rung in ladder["rungs"][:2]:
        # The float twin's weights are float16, the claim's are float32.
        assert rung["claimed_bpb"] == pytest.approx(rung["measured_bpb"], rel=1e-3)
    top = ladder["rungs"][-1]
    assert top["claimed_bpb"] < 0.9 * top["measured_bpb"]


def test_a_finished_ladder_is_not_climbed_again(climbed: Path, parbyte: Command) -> None:
    before = (climbed / "seed" / "ladder.json").read_text()
    answer = parbyte("seed", climbed, *EXCERPT)
    assert answer.code == 0
    assert "its rate is chosen" not in answer.err
    assert [name for name in RUNGS if f"{name}: finished before, skipped" in answer.err] == RUNGS
    assert (climbed / "seed" / "ladder.json").read_text() == before


def test_an_interrupt_loses_the_running_rung_alone(
    run: Path, parbyte: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parbyte.base.log import Console

    for rung in (run / "seed" / "rungs").glob("*.json"):
        if rung.name != "0-float.json":
            rung.unlink()
    say = Console.say

    def interrupt(self: Console, text: str) -> None:
        say(self, text)
        if text.startswith("sliding: ") and "its audit next" in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(Console, "say", interrupt)
    assert parbyte("seed", run, *EXCERPT).code == 130
    stored = sorted(path.name for path in (run / "seed" / "rungs").glob("*.json"))
    assert stored == ["0-float.json", "1-packed.json"]
    assert list(run.rglob("*.part")) == []


def test_a_claimed_number_never_stands_without_the_word(
    climbed: Path, ladder: dict[str, Any], parbyte: Command
) -> None:
    shown = {
        "terminal": parbyte("seed", climbed, *EXCERPT, "--quiet").out,
        "page": (climbed / "seed" / "ladder.html").read_text(),
        "picture": (climbed / "seed" / "ladder.svg").read_text(),
    }
    honest = {
        f"{rung[key]:.4f}" for rung in ladder["rungs"] for key in ("measured_bpb", "coded_bpb")
    }
    for rung in ladder["rungs"]:
        number = f"{rung['claimed_bpb']:.4f}"
        for where, text in shown.items():
            claims = re.findall(re.escape(number) + r" bpb \((\w+)\)", text)
            assert "claimed" in claims, (where, number)
            allowed = {"claimed"} | ({"measured", "coded"} if number in honest else set())
            assert set(claims) <= allowed, (where, claims)
            assert text.count(number) == len(claims), (where, number)


def test_a_claimed_number_has_its_own_key_in_every_file(climbed: Path) -> None:
    def keys(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(key for inner in value.values() for key in keys(inner))]
        return [key for inner in value for key in keys(inner)] if isinstance(value, list) else []

    found = keys(json.loads((climbed / "seed" / "ladder.json").read_text()))
    rates = {key for key in found if key.endswith("bpb")}
    assert rates == {"claimed_bpb", "measured_bpb", "coded_bpb"}


def test_another_text_is_another_ladder(run: Path, tmp_path: Path, parbyte: Command) -> None:
    short = tmp_path / "short.txt"
    short.write_text("In the beginning. ")
    answer = parbyte("seed", run, "--text", short)
    assert answer.code == 2
    assert "give a longer --text or --excerpt" in answer.complaint
    assert parbyte("seed", run, "--text", tmp_path / "absent.txt").code == 2
