"""The report's figures: plain values in, one self-contained SVG string out.

One style for all: horizontal where names are long, grey for others, blue for parbyte, no frames.
The same values give the same bytes, so a report can be compared with the one before it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parbyte.base.units import nats_to_bits
from parbyte.report.rate_distortion import RateCurve, RateDistortion

OURS, OURS_LIGHT, OTHERS, ACCENT = "#0b6a94", "#a9cfe0", "#bcc5cd", "#b6500f"
INK, MUTED, RULE = "#1d2730", "#5b6773", "#e1e6ea"
# Inches at 72 points; the page shows a figure 1.3 times larger.
_WIDTH = 9.6
_ROW_HEIGHT = 0.32
_FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
_MAX_DOCUMENT_BARS = 400
# Right edges of the comparison's columns, as fractions of the width of its bars.
_COLUMNS = (1.41, 1.81, 2.1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the comparison: a rate, and the bytes that stand behind it."""

    name: str
    bpb: float
    compressed_bytes: int | None
    """None for a number that wrote no file."""
    shared_bytes: int
    """Bytes that the receiver must hold beforehand."""
    is_ours: bool = False


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One line of the training log."""

    seconds: float
    loss_nats: float
    dev_bpb: float | None


def draw_comparison(rows: Sequence[Row]) -> str:
    """Draw rates as bars, lowest first, with the bytes behind each in columns beside them."""
    ordered = sorted(rows, key=lambda row: row.bpb)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.275, right=0.62, top=1 - 0.36 / height, bottom=0.06 / height)
        colors = [_color(row) for row in ordered]
        _draw_bars(axes, [(row.name, row.bpb, f"{row.bpb:.4f}") for row in ordered], colors)
        for label, row in zip(axes.get_yticklabels(), ordered, strict=True):
            label.set_fontweight("bold" if row.is_ours else "normal")
        _write_columns(axes, ordered)

    height = 0.42 + _ROW_HEIGHT * len(ordered)
    return _to_svg("comparison", "Bits per byte by compressor", height, draw)


@dataclass(frozen=True, kw_only=True)
class RungBars:
    """One rung of a ladder: what is claimed, and what is left; labels say the kind of number."""

    name: str
    claimed: float
    claimed_label: str
    honest: float
    honest_label: str


def draw_ladder(rungs: Sequence[RungBars]) -> str:
    """Draw two bars a rung, what is claimed over what is coded, from the first rung down."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.1, right=0.83, top=1 - 0.06 / height, bottom=0.06 / height)
        bars, colors = [], []
        for rung in rungs:
            bars += [(rung.name, rung.claimed, rung.claimed_label)]
            bars += [("", rung.honest, rung.honest_label)]
            colors += [ACCENT, OURS]
        _draw_bars(axes, bars, colors)

    height = 0.12 + 2 * _ROW_HEIGHT * len(rungs)
    return _to_svg("ladder", "Bits per byte of each rung, claimed and coded", height, draw)


def draw_sweep(claimed: Mapping[str, float], limit: float, labels: tuple[str, str, str]) -> str:
    """Draw a claimed figure over the size of the tables, by names; the limit is what they hold.

    labels: of the horizontal axis, of the vertical axis, of the limit.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.84, top=0.96, bottom=0.17)
        places = list(range(len(claimed)))
        axes.plot(places, list(claimed.values()), color=ACCENT, marker="o", ms=4, linewidth=1.3)
        axes.axhline(limit, color=OURS, linewidth=1.3)
        edge = places[-1] + 0.3
        _label_end(axes, edge, limit, labels[2], OURS)
        _frame(axes, labels[0], labels[1])
        axes.set_xticks(places, list(claimed))
        axes.set_xlim(-0.3, edge)
        axes.set_ylim(0, None)

    return _to_svg("sweep", f"{labels[1]} by {labels[0]}", 3.2, draw)


def draw_parts(parts: Mapping[str, int]) -> str:
    """Draw the bytes of each part of an artifact, largest first."""
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    total = max(1, sum(parts.values()))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.16, right=0.8, top=1 - 0.06 / height, bottom=0.06 / height)
        labels = [(n, float(size), f"{size:,}  ({size / total:.1%})") for n, size in ordered]
        _draw_bars(axes, labels, [OURS] * len(ordered))

    height = 0.12 + _ROW_HEIGHT * len(ordered)
    return _to_svg("parts", "Bytes of the artifact by part", height, draw)


def draw_training(points: Sequence[CurvePoint], bytes_per_token: float | None) -> str:
    """Draw the training loss and the development figures over the seconds of training.

    bytes_per_token: of the training text; turns nats per token into bits per byte, so that both
    curves share one axis. None: the loss is drawn in nats, development figures are left out.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.865, top=0.96, bottom=0.17)
        scale = nats_to_bits(1.0) / bytes_per_token if bytes_per_token else 1.0
        end_s = points[-1].seconds
        loss = [(p.seconds, p.loss_nats * scale) for p in points]
        developed = [(p.seconds, p.dev_bpb) for p in points if p.dev_bpb is not None]
        # The first losses are those of an untrained network and would flatten all others.
        settled = [(seconds, y) for seconds, y in loss if seconds * 25 > end_s]
        line: dict[str, Any] = {"linewidth": 1.3, "ms": 4, "clip_on": False}
        marker = "o" if len(settled) == 1 else ""
        axes.plot(*zip(*settled, strict=True), color=OURS, marker=marker, **line)
        nudge = 0.0
        if bytes_per_token and developed:
            axes.plot(*zip(*developed, strict=True), color=ACCENT, marker="o", **line)
            last_bpb = developed[-1][1]
            nudge = _nudge(loss[-1][1], last_bpb, [y for _, y in [*settled, *developed]])
            _label_end(axes, end_s, last_bpb, f"development {last_bpb:.3f}", ACCENT, -nudge)
        _label_end(axes, end_s, loss[-1][1], f"training {loss[-1][1]:.3f}", OURS, nudge)
        _frame(axes, "seconds of training", "bits per byte" if bytes_per_token else "nats a token")
        axes.set_xlim(0, end_s)
        axes.margins(y=0.12)

    return _to_svg("training", "Loss over the seconds of training", 3.2, draw)


def draw_rate_distortion(found: RateDistortion) -> str:
    """Draw measured bits per byte over the artifact's bytes, one curve a way of quantising.

    The first curve is what the others are compared with, and says how far up the figure goes. Named
    are it and the curves that no other beats everywhere; the rest stand thin behind them.
    """
    first = found.curves[:1]
    top = max((bpb for curve in first for _, bpb in curve.points), default=0.0)
    colors = (OTHERS, OURS, ACCENT, INK, OURS_LIGHT, MUTED)
    named = [*first, *_unbeaten(found.curves[1:], top)[: len(colors) - 1]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.8, top=0.96, bottom=0.17)
        for curve in found.curves:
            kb, bpb = _visible(curve, top)
            if curve not in named:
                axes.plot(kb, bpb, color=RULE, linewidth=0.8, zorder=1)
                continue
            color = colors[named.index(curve)]
            axes.plot(kb, bpb, color=color, marker="o", ms=3.5, linewidth=1.3, label=curve.name)
        axes.axhline(found.float_bpb, color=RULE, linewidth=1.1, label="float weights")
        _frame(axes, "bytes of the artifact, KB", "bits per byte")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

    return _to_svg("rates", "Bits per byte by bytes of the artifact", 3.4, draw)


def _visible(curve: RateCurve, top: float) -> tuple[list[float], list[float]]:
    """Return kilobytes and bits per byte of a curve's points up to a rate."""
    points = [(num_bytes / 1000, bpb) for num_bytes, bpb in curve.points if bpb <= top]
    return [kb for kb, _ in points], [bpb for _, bpb in points]


def _unbeaten(curves: Sequence[RateCurve], top: float) -> list[RateCurve]:
    """Return the curves with visible points that no other is left of and below, most such first."""
    points = [point for curve in curves for point in curve.points if point[1] <= top]

    def leads(point: tuple[int, float]) -> bool:
        return not any(o != point and o[0] <= point[0] and o[1] <= point[1] for o in points)

    count = {curve: sum(p in points and leads(p) for p in curve.points) for curve in curves}
    return sorted((curve for curve in curves if count[curve]), key=lambda curve: -count[curve])


def draw_documents(documents: Sequence[tuple[int, float]]) -> str:
    """Draw (bytes, bits per byte) of each document in order; a bar's area is its bits.

    More documents than can be seen are drawn in groups of neighbours.
    """
    groups = _group_documents(documents, _MAX_DOCUMENT_BARS)
    edges_kb, total_bits = [0.0], 0.0
    for num_bytes, bpb in groups:
        edges_kb.append(edges_kb[-1] + num_bytes / 1000)
        total_bits += num_bytes * bpb
    mean = total_bits / max(1.0, 1000 * edges_kb[-1])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.865, top=0.96, bottom=0.2)
        rates = [bpb for _, bpb in groups]
        axes.stairs(rates, edges_kb, fill=True, color=OURS_LIGHT)
        axes.stairs(rates, edges_kb, color=OURS, linewidth=0.8)
        axes.axhline(mean, color=ACCENT, linewidth=1.1)
        _label_end(axes, edges_kb[-1], mean, f"all {mean:.4f}", ACCENT)
        _frame(axes, "place in the held-out text, KB", "bits per byte")
        axes.set_xlim(0, edges_kb[-1])
        axes.set_ylim(0, 1.05 * max(rates))

    return _to_svg("documents", "Bits per byte along the held-out text", 2.8, draw)


def _group_documents(documents: Sequence[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    size = -(-len(documents) // limit)
    groups = [documents[at : at + size] for at in range(0, len(documents), max(1, size))]
    sums = [(sum(b for b, _ in group), sum(b * r for b, r in group)) for group in groups]
    return [(num_bytes, bits / num_bytes) for num_bytes, bits in sums if num_bytes]


def _color(row: Row) -> str:
    if not row.is_ours:
        return OTHERS
    return OURS if row.compressed_bytes is not None else OURS_LIGHT


def _draw_bars(axes: Axes, bars: Sequence[tuple[str, float, str]], colors: Sequence[str]) -> None:
    places = range(len(bars))
    lengths = [length for _, length, _ in bars]
    axes.barh(places, lengths, color=list(colors), height=0.68)
    axes.set_yticks(places, [name for name, _, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, max([*lengths, 1e-9]))
    axes.set_xticks([])
    axes.tick_params(length=0, pad=6)
    axes.spines[:].set_visible(False)
    for place, (_, length, label) in enumerate(bars):
        offset = {"textcoords": "offset points", "xytext": (5, 0)}
        axes.annotate(label, (length, place), va="center", color=INK, **offset)


def _write_columns(axes: Axes, rows: Sequence[Row]) -> None:
    """Write the bytes behind each bar to its right, in three right-aligned columns."""
    heads = ("bytes sent", "held beforehand", "together")
    for head, place in zip(heads, _COLUMNS, strict=True):
        axes.annotate(
            head,
            (place, 1.0),
            xycoords="axes fraction",
            textcoords="offset points",
            xytext=(0, 7),
            ha="right",
            color=MUTED,
        )
    for place, row in enumerate(rows):
        sent = row.compressed_bytes
        cells = (
            "no file" if sent is None else f"{sent:,}",
            f"{row.shared_bytes:,}" if row.shared_bytes else "0",
            "" if sent is None else f"{sent + row.shared_bytes:,}",
        )
        for cell, column in zip(cells, _COLUMNS, strict=True):
            at = (column, place)
            axes.text(*at, cell, transform=axes.get_yaxis_transform(), ha="right", va="center")


def _nudge(y: float, other: float, shown: Sequence[float]) -> float:
    """Return by how many points the label at y must move so that it clears the one at other."""
    if abs(y - other) > 0.18 * (max(shown) - min(shown)):
        return 0.0
    return 12.0 if y >= other else -12.0


def _label_end(axes: Axes, x: float, y: float, text: str, color: str, nudge: float = 0.0) -> None:
    """Write a curve's name and last value to the right of the axes, `nudge` points higher."""
    axes.annotate(
        text.replace(" ", "\n", 1),
        (x, y),
        textcoords="offset points",
        xytext=(8, nudge),
        va="center",
        color=color,
        annotation_clip=False,
        linespacing=1.3,
    )


def _frame(axes: Axes, x_label: str, y_label: str) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(x_label, color=MUTED)
    axes.set_ylabel(y_label, color=MUTED)


def _style(name: str) -> AbstractContextManager[Any]:
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 9.8,
        "text.color": INK,
        "ytick.labelcolor": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
    }
    return matplotlib.rc_context(settings)


def _to_svg(name: str, title: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Run `draw` on an empty figure and return SVG that can stand inside a page."""
    out = StringIO()
    with _style(name):
        figure = Figure(figsize=(_WIDTH, height))
        draw(figure)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several figures share a page: no two elements may have the same id.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", _FONTS)
    size = re.compile(r'width="[\d.]+pt" height="[\d.]+pt"')
    return size.sub(f'role="img" aria-label="{title}"', svg, count=1)
