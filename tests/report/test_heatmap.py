"""The passage: dear tokens are dark, and the stage that saved most signs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.errors import DataError
from parbyte.report.heatmap import HeatMap, read_heat_map

STAGES = [
    {"name": "network", "bpb": 2.0, "seconds": 1.0, "state_bytes": 0},
    {"name": "ngram", "bpb": 1.5, "seconds": 2.0, "state_bytes": 1 << 20},
    {"name": "sse", "bpb": 1.5, "seconds": 0.5, "state_bytes": 10},
]


def heat_map(folder: Path, **changes: Any) -> HeatMap:
    table = {
        "stages": STAGES,
        "pieces": ["the", " cat", "!"],
        "bits": [[3.0, 20.0, 1.0], [1.0, 20.0, 0.9], [1.0, 18.0, 0.8]],
        **changes,
    }
    path = folder / "explanation.json"
    path.write_text(json.dumps(table))
    return read_heat_map(path)


def test_the_stage_that_saved_most_signs_a_token_if_it_saved_enough(tmp_path: Path) -> None:
    cells = heat_map(tmp_path).cells
    assert [cell.payer for cell in cells] == [1, 2, None]
    assert [cell.text for cell in cells] == ["the", " cat", "!"]
    assert cells[0].legend == "bits: network 3.00, ngram 1.00, sse 1.00"


def test_heat_grows_with_the_last_stages_bits_and_is_bounded(tmp_path: Path) -> None:
    heats = [cell.heat for cell in heat_map(tmp_path).cells]
    assert heats[2] < heats[0] < heats[1] == 1.0


def test_gains_are_against_the_stage_below(tmp_path: Path) -> None:
    assert [stage.gain for stage in heat_map(tmp_path).stages] == [None, -0.25, 0.0]


def test_an_empty_text_has_no_passage(tmp_path: Path) -> None:
    assert heat_map(tmp_path, pieces=[], bits=[[], [], []]).cells == ()


@pytest.mark.parametrize(
    "changes",
    [{"bits": [[1.0]]}, {"stages": [{"name": "x"}]}, {"stages": 3}, {"pieces": ["a"]}],
)
def test_a_damaged_file_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"explanation\.json' is damaged"):
        heat_map(tmp_path, **changes)
