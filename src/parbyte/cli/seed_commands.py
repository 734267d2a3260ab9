"""The command `seed`: the ladder of PR 1430 over a run, claimed numbers beside coded ones."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.log import console_for
from parbyte.cli.entry import DONE, NOT_PROVEN, crashes_kept_in
from parbyte.cli.options import JsonOption, OutOption, QuietOption, SetOption, input_file
from parbyte.cli.output import Row, emit
from parbyte.cli.run_commands import open_run
from parbyte.pipeline import run_stages

_RECIPE = "pr1430-tiny"
_FOLDER = "seed"
_EXCERPT_BYTES = 1 << 14


def seed(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="What is trained, or was.")
    ] = _RECIPE,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to score; default: held-out text.")
    ] = None,
    excerpt: Annotated[
        int,
        typer.Option(
            min=1 << 10, max=1 << 23, metavar="BYTES", help="How much of it every rung scores."
        ),
    ] = _EXCERPT_BYTES,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Set what PR 1430 claims, rung by rung, beside what is left once it is repaired."""
    this = open_run(recipe, out, set_, console_for(quiet=quiet))
    source = input_file(text) if text else None
    with crashes_kept_in(this.folder):
        run_stages(this, until="pack")
        if not this.world.is_main:
            return DONE
        # Only here and in audit may claims come into memory.
        from parbyte.seed.climb import Climb, climb
        from parbyte.seed.page import write_page

        plan = Climb(
            run=this.folder,
            out=this.folder / _FOLDER,
            console=this.console,
            codec=this.recipe.codec,
            text=source,
            limit=excerpt,
        )
        ladder = climb(plan)
        page = write_page(ladder, plan.out)
    if as_json or not sys.stdout.isatty():
        emit(ladder, ladder_rows(ladder, page), as_json=as_json)
    else:
        _print_table(ladder, page)
    return DONE if ladder["all_convicted"] and ladder["all_certified"] else NOT_PROVEN


def ladder_rows(ladder: Mapping[str, Any], page: Path) -> list[Row]:
    """Return the ladder as lines: two for each rung, then what the whole comes to."""
    from parbyte.seed.page import claimed, coded, measured, verdict_words

    rows: list[Row] = []
    for rung in ladder["rungs"]:
        rows.append((rung["name"], claimed(rung), verdict_words(rung)))
        figures = f"{measured(rung)}, {coded(rung)}"
        rows.append(("  repaired", figures, f"{rung['twin_verdict']}: {rung['repair']}"))
    return [*rows, *_summary(ladder), ("page", str(page), "")]


def _summary(ladder: Mapping[str, Any]) -> list[Row]:
    text = ladder["text"]
    return [
        (
            "the whole ladder",
            f"{ladder['claimed_below_twin_percent']:.1f} % too low (claimed)",
            f"against its repaired twin; {ladder['claimed_below_best_measured_percent']:.1f} % "
            "against the best measured",
        ),
        (
            "text",
            f"{text['bytes']:,} bytes",
            f"{text['tokens']:,} tokens of {text['name']}, the same for every rung; "
            "more with --excerpt",
        ),
        (
            "audit",
            "every broken condition shown" if ladder["all_convicted"] else "NOT all shown",
            "each rung alone, over the first "
            f"{ladder['rungs'][-1]['audited_tokens']:,} tokens and noise",
        ),
    ]


def _print_table(ladder: Mapping[str, Any], page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from parbyte.seed.page import claimed, coded, measured, verdict_words

    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("rung", "claimed", "the audit", "repaired", "measured", "coded", "the audit"):
        table.add_column(head, overflow="fold")
    for rung in ladder["rungs"]:
        cells = (claimed(rung), verdict_words(rung), rung["repair"], measured(rung), coded(rung))
        table.add_row(rung["name"], *cells, rung["twin_verdict"])
    console = Console()
    console.print(table)
    for name, value, condition in [*_summary(ladder), ("page", str(page), "")]:
        console.print(f"{name}: {value}" + (f" ({condition})" if condition else ""))
