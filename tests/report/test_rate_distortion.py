"""report.rate_distortion: absent, drawn, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.errors import DataError
from parbyte.report.figures import draw_rate_distortion
from parbyte.report.rate_distortion import QUANTIZE_FILE, read_rate_distortion

POINT = {"setting": "int6", "seconds": 1.0}
TABLE: dict[str, Any] = {
    "float_bpb": 1.5,
    "ways": {
        "seed": [
            {"bytes": 300_000, "bpb": 1.52, **POINT},
            {"bytes": 200_000, "bpb": 1.6, **POINT},
        ],
        "gptq": [
            {"bytes": 150_000, "bpb": 1.6, **POINT},
            {"bytes": 250_000, "bpb": 1.51, **POINT},
        ],
        "lone": [{"bytes": 1, "bpb": 1.0, **POINT}],
    },
}


def test_a_folder_without_the_file_has_no_curves(tmp_path: Path) -> None:
    assert read_rate_distortion(tmp_path) is None


def test_curves_are_read_smallest_first_and_drawn_with_their_names(tmp_path: Path) -> None:
    (tmp_path / QUANTIZE_FILE).write_text(json.dumps(TABLE))
    found = read_rate_distortion(tmp_path)
    assert found is not None
    assert [curve.name for curve in found.curves] == ["seed", "gptq"]
    assert found.curves[0].points == ((200_000, 1.6), (300_000, 1.52))
    svg = draw_rate_distortion(found)
    assert svg.startswith("<svg")
    assert all(name in svg for name in ("seed", "gptq", "float weights"))
    assert draw_rate_distortion(found) == svg


def test_a_curve_that_another_beats_everywhere_or_that_lies_above_the_first_has_no_name(
    tmp_path: Path,
) -> None:
    beaten = [{"bytes": 260_000, "bpb": 1.55, **POINT}, {"bytes": 290_000, "bpb": 1.54, **POINT}]
    coarse = [{"bytes": 90_000, "bpb": 2.2, **POINT}, {"bytes": 95_000, "bpb": 2.1, **POINT}]
    ways = {**TABLE["ways"], "beaten way": beaten, "coarse way": coarse}
    (tmp_path / QUANTIZE_FILE).write_text(json.dumps({**TABLE, "ways": ways}))
    found = read_rate_distortion(tmp_path)
    assert found is not None
    assert len(found.curves) == 4
    svg = draw_rate_distortion(found)
    assert "gptq" in svg
    assert "beaten way" not in svg
    assert "coarse way" not in svg


def test_single_points_alone_leave_an_empty_figure(tmp_path: Path) -> None:
    ways = {"lone": TABLE["ways"]["lone"]}
    (tmp_path / QUANTIZE_FILE).write_text(json.dumps({**TABLE, "ways": ways}))
    found = read_rate_distortion(tmp_path)
    assert found is not None
    assert "float weights" in draw_rate_distortion(found)


@pytest.mark.parametrize("table", [[], {"ways": {}}, {"ways": {"a": [{}]}, "float_bpb": 1}])
def test_another_files_content_is_refused(table: object, tmp_path: Path) -> None:
    (tmp_path / QUANTIZE_FILE).write_text(json.dumps(table))
    with pytest.raises(DataError, match="quantize"):
        read_rate_distortion(tmp_path)
