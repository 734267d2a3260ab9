"""What commands print on stdout: one JSON object, or a few named lines."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = tuple[str, str, str]
"""What, value, and under which condition the value holds."""


def emit(result: Mapping[str, Any], rows: Sequence[Row], *, as_json: bool) -> None:
    """Print a result: the whole object as JSON, or its rows for a person."""
    if as_json:
        print(json.dumps(result, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for name, value, condition in rows:
            print(f"{name} {value}" + (f" ({condition})" if condition else ""))


def scorecard_rows(scorecard: Mapping[str, Any], report: Path) -> list[Row]:
    """Return the lines that end a run."""
    lanes = "1 lane" if scorecard["lanes"] == 1 else f"{scorecard['lanes']:,} lanes"
    is_decoded = scorecard["checks"]["decoded_equal"]["passed"]
    kind = "coded" if is_decoded else "size of the bitstream, which was not decoded back"
    verdict = "yes" if scorecard["certified"] else "no"
    failed = [name for name, check in scorecard["checks"].items() if not check["passed"]]
    seconds = scorecard["stage_seconds"]
    rows = [
        ("certified", verdict, scorecard["reason"] or "decoded back by a fresh process"),
        ("bpb", f"{scorecard['coded_bpb']:.4f}", f"{kind}, {lanes}"),
        ("bpb", f"{scorecard['measured_bpb']:.4f}", f"measured, {lanes}"),
        ("text", f"{scorecard['text_bytes']:,} bytes", f"held-out part of {scorecard['corpus']}"),
        (
            "artifact",
            f"{scorecard['artifact_bytes']:,} bytes",
            f"cap {scorecard['cap_bytes']:,}, track {scorecard['track']}",
        ),
        (
            "training",
            f"{scorecard['train_seconds']:.1f} s",
            f"{scorecard['steps']:,} steps, {scorecard['tokens_per_second']:,.0f} tokens/s",
        ),
        ("scoring", f"{seconds.get('score', 0.0):.1f} s", _speed(scorecard, "measured")),
        ("encoding", f"{seconds.get('compress', 0.0):.1f} s", _speed(scorecard, "encode")),
        ("decoding", f"{seconds.get('prove', 0.0):.1f} s", _speed(scorecard, "decode")),
        ("within the track", "no" if failed else "yes", ", ".join(failed)),
    ]
    if is_decoded and scorecard.get("decodes"):
        rows.append(("decodes", scorecard["decodes"], ""))
    return [*rows, ("report", str(report), "")] if report.is_file() else rows


def stage_rows(stages: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a line for each stage of a stack: its rate, and what it gained at which expense."""
    rows: list[Row] = []
    for below, stage in zip([None, *stages], stages, strict=False):
        gain = f"{100 * (stage['bpb'] / below['bpb'] - 1):+.2f} %, " if below else ""
        expense = f"{stage['seconds']:.1f} s, {stage['state_bytes'] / 2**20:.1f} MiB"
        rows.append((stage["name"], f"{stage['bpb']:.4f}", f"measured; {gain}{expense}"))
    return rows


def _speed(scorecard: Mapping[str, Any], kind: str) -> str:
    speed = scorecard[f"{kind}_tokens_per_second"]
    return f"{speed:,.0f} tokens/s" if speed else ""


def _print_table(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value, condition in rows:
        table.add_row(Text(name, style="dim"), Text(value, style="bold"), Text(condition))
    Console().print(table)
