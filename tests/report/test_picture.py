"""The scripts that carry a run's numbers into the README read what a run leaves."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks import demo, picture

from parbyte.report.page import write_report


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    folder = make_run()
    write_report(folder)
    return folder


def test_the_picture_stands_alone_on_a_white_ground(run: Path) -> None:
    root = ElementTree.fromstring(picture.draw_run(run))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
    assert root[0].tag.endswith("rect") and root[0].get("fill") == "#ffffff"
    assert "parbyte, coded" in "".join(root.itertext())


def test_the_demos_figures_are_the_scorecards(run: Path) -> None:
    card = json.loads((run / "scorecard.json").read_text())
    stored = json.loads((run / "baselines.json").read_text())
    figures = demo.demo_figures(card, stored)
    assert figures["coded_bpb"] == card["coded_bpb"]
    assert figures["gap_percent"] == pytest.approx(0.07)
    assert figures["total_seconds"] == pytest.approx(sum(card["stage_seconds"].values()))
    assert figures["compressors"]["xz -9e"] > 0
    assert json.loads(json.dumps(figures)) == figures
