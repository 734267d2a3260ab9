"""The ladder as one self-contained HTML page and one picture; claimed numbers say so.

The same ladder gives the same page, byte for byte.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from parbyte.base.files import write_bytes
from parbyte.claims.claimed import ClaimedRate
from parbyte.report.figures import RungBars, draw_ladder
from parbyte.seed.rungs import CONDITIONS

PAGE_FILE, PICTURE_FILE = "ladder.html", "ladder.svg"


def write_page(ladder: Mapping[str, Any], folder: Path) -> Path:
    """Write the page and its picture into a folder, and return the page's path."""
    picture = draw(ladder)
    write_bytes(folder / PICTURE_FILE, on_paper(picture).encode())
    path = folder / PAGE_FILE
    write_bytes(path, render(ladder, picture).encode())
    return path


def draw(ladder: Mapping[str, Any]) -> str:
    """Return the ladder as SVG."""
    bars = [
        RungBars(
            name=rung["name"],
            claimed=rung["claimed_bpb"],
            claimed_label=claimed(rung),
            honest=rung["coded_bpb"] or rung["measured_bpb"],
            honest_label=coded(rung) if rung["coded_bpb"] else measured(rung),
        )
        for rung in ladder["rungs"]
    ]
    return draw_ladder(bars)


def on_paper(svg: str) -> str:
    """Return a picture that can stand alone: a dark page would swallow its dark text."""
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


def render(ladder: Mapping[str, Any], picture: str) -> str:
    """Return the page as HTML."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "claimed": claimed,
        "measured": measured,
        "coded": coded,
        "count": lambda value: f"{value:,}",
        "percent": lambda value: f"{value:.1f} %",
        "verdict": verdict_words,
    }
    source = resources.files("parbyte.seed").joinpath("page.html").read_text(encoding="utf-8")
    # Drawn by us from numbers and escaped names: the only text that may not be escaped.
    values = {"ladder": ladder, "picture": Markup(picture), "conditions": CONDITIONS}
    return environment.from_string(source).render(values).rstrip() + "\n"


def claimed(rung: Mapping[str, Any]) -> str:
    """Return a rung's claimed rate; the word comes with it."""
    return f"{ClaimedRate(rung['claimed_bpb']):.4f}"


def measured(rung: Mapping[str, Any]) -> str:
    """Return the twin's measured rate."""
    return f"{rung['measured_bpb']:.4f} bpb (measured)"


def coded(rung: Mapping[str, Any]) -> str:
    """Return the twin's coded rate, if its bitstream was decoded."""
    rate = rung["coded_bpb"]
    return f"{rate:.4f} bpb (coded)" if rate is not None else "not decoded"


def verdict_words(rung: Mapping[str, Any]) -> str:
    """Return the verdict with the conditions that were shown to be broken, and by which check."""
    shown = [f"{one['condition']} by {one['check']}" for one in rung["evidence"]]
    missed = [f"{condition} NOT shown" for condition in rung["escaped"]]
    return (
        f"{rung['verdict']}: {', '.join([*shown, *missed])}"
        if shown or missed
        else ("nothing found" if rung["verdict"] == "not proven" else rung["verdict"])
    )
