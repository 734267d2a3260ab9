"""Figures are well-formed, repeatable SVG that shows the values it was given."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parbyte.report.figures import (
    CurvePoint,
    Row,
    RungBars,
    draw_comparison,
    draw_documents,
    draw_ladder,
    draw_parts,
    draw_sweep,
    draw_training,
)

ROWS = [
    Row(name="xz -9e", bpb=2.2018, compressed_bytes=115_216, shared_bytes=0),
    Row(name="ours", bpb=1.5832, compressed_bytes=82_841, shared_bytes=398_112, is_ours=True),
    Row(name="theory", bpb=1.5821, compressed_bytes=None, shared_bytes=398_112, is_ours=True),
]
CURVE = [
    CurvePoint(seconds=s + 1.0, loss_nats=8.0 - 0.04 * s, dev_bpb=1.6 if s == 99 else None)
    for s in range(100)
]
RUNGS = [
    RungBars(
        name=name,
        claimed=value,
        claimed_label=f"{value} (claimed)",
        honest=1.5,
        honest_label="1.5 (coded)",
    )
    for name, value in (("packed", 1.5), ("+ SLOT", 0.6))
]
DRAWINGS: dict[str, Callable[[], str]] = {
    "comparison": lambda: draw_comparison(ROWS),
    "parts": lambda: draw_parts({"weights": 379_000, "header <x>": 2_112, "empty": 0}),
    "training": lambda: draw_training(CURVE, 4.4),
    "training in nats": lambda: draw_training(CURVE, None),
    "one step of training": lambda: draw_training(CURVE[:1], 4.4),
    "documents": lambda: draw_documents([(1000, 1.5), (3000, 1.7)]),
    "ladder": lambda: draw_ladder(RUNGS),
    "sweep": lambda: draw_sweep({"2^10": 0.7, "exact": 11.2}, 10.0, ("buckets", "bits", "limit")),
    "one document": lambda: draw_documents([(1000, 1.5)]),
}


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in found]


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_a_figure_is_whole_labelled_and_repeatable(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("aria-label") and root.get("viewBox")
    assert root.get("width") is None, "the page decides how wide a figure is"
    assert draw() == svg


def test_the_comparison_is_sorted_and_shows_every_number() -> None:
    shown = texts(draw_comparison(ROWS))
    names = [text for text in shown if text in {row.name for row in ROWS}]
    assert names == ["theory", "ours", "xz -9e"]
    assert {"1.5832", "2.2018", "82,841", "398,112", "480,953", "no file"} <= set(shown)


def test_parts_show_bytes_and_share_largest_first() -> None:
    shown = texts(draw_parts({"small": 100, "large": 900}))
    assert shown.index("large") < shown.index("small")
    assert any("900" in text and "90.0%" in text for text in shown)


def test_training_shows_both_curves_on_one_axis() -> None:
    shown = " ".join(texts(draw_training(CURVE, 4.4)))
    assert "bits per byte" in shown and "development" in shown and "1.600" in shown
    assert "bits per byte" not in " ".join(texts(draw_training(CURVE, None)))


def test_the_mean_over_documents_counts_bytes_not_documents() -> None:
    shown = " ".join(texts(draw_documents([(1000, 1.0), (3000, 2.0)])))
    assert "1.7500" in shown


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(0.01, 20.0)), min_size=1, max_size=1200
    ).filter(lambda documents: any(size for size, _ in documents))
)
def test_any_number_of_documents_can_be_drawn(documents: list[tuple[int, float]]) -> None:
    svg = draw_documents(documents)
    mean = sum(b * r for b, r in documents) / sum(b for b, _ in documents)
    shown = re.search(r"all ([\d.]+)", " ".join(texts(svg)))
    assert shown and float(shown[1]) == pytest.approx(mean, abs=6e-5)
    assert len(svg) < 200_000


def test_the_ladder_shows_both_numbers_of_every_rung_in_order() -> None:
    shown = [text for text in texts(draw_ladder(RUNGS)) if "(" in text]
    assert shown == ["1.5 (claimed)", "1.5 (coded)", "0.6 (claimed)", "1.5 (coded)"]
