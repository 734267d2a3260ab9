"""Commands that work on a recipe and its run folder: run, data, train, pack."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.files import read_json
from parbyte.base.log import Console, console_for
from parbyte.base.world import world_from_environment
from parbyte.cli.entry import DONE, NOT_PROVEN, crashes_kept_in
from parbyte.cli.options import (
    JsonOption,
    OutOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    refuse_options,
)
from parbyte.cli.output import Row, emit, scorecard_rows
from parbyte.pipeline import LAST_STAGE, run_stages
from parbyte.recipe import is_run_folder, load_recipe
from parbyte.run_folder import (
    ARTIFACT_FILE,
    REPORT_FILE,
    SCORECARD_FILE,
    Records,
    Run,
)

_RUNS_FOLDER = Path("runs")
_FINEWEB = "fineweb"
_FINEWEB_FOLDER = Path("data") / _FINEWEB
_FINEWEB_SHARDS = 80


def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Do every stage of a recipe: data, train, pack, score, compress, prove, report."""
    return advance(recipe, out, set_, as_json, quiet, until=LAST_STAGE)


def data(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="As for `run`; or `fineweb` to fetch it.")
    ],
    out: OutOption = None,
    set_: SetOption = None,
    variant: Annotated[
        str, typer.Option(help="With `fineweb`: whose tokenizer's shards to fetch.")
    ] = "sp1024",
    shards: Annotated[
        int, typer.Option(min=1, help="With `fineweb`: number of training shards.")
    ] = _FINEWEB_SHARDS,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="With `fineweb`: another hub server.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Prepare the text of a recipe; `data fineweb` fetches the contest's token shards."""
    if recipe != _FINEWEB or Path(recipe).exists():
        refuse_options(context, ("variant", "shards", "endpoint"), f"belongs to `data {_FINEWEB}`")
        return advance(recipe, out, set_, as_json, quiet, until="data")
    refuse_options(context, ("set_",), f"belongs to a recipe, `data {_FINEWEB}` is none")
    from parbyte.text.hub import download_fineweb

    files = download_fineweb(
        variant,
        out or _FINEWEB_FOLDER,
        shards,
        endpoint=endpoint,
        console=console_for(quiet=quiet),
    )
    result = {"text.corpus": str(files.shards), "text.tokenizer_file": str(files.tokenizer)}
    emit(result, [(key, value, "") for key, value in result.items()], as_json=as_json)
    return DONE


def train(
    recipe: RecipeArgument,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Prepare the text and train; an interrupted training goes on."""
    return advance(recipe, out, set_, as_json, quiet, until="train")


def pack(
    recipe: RecipeArgument,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Go on as far as the packed artifact."""
    return advance(recipe, out, set_, as_json, quiet, until="pack")


def advance(
    recipe: str,
    out: Path | None,
    set_: list[str] | None,
    as_json: bool,
    quiet: bool,
    *,
    until: str,
) -> int:
    """Bring a recipe's run up to a stage and print what that stage left."""
    world = world_from_environment()
    this = open_run(recipe, out, set_, console_for(quiet=quiet or not world.is_main))
    with crashes_kept_in(this.folder):
        records = run_stages(this, until=until)
    if not world.is_main:
        return DONE
    if until in (LAST_STAGE, "prove"):
        return show_scorecard(this, as_json)
    figures = records.finished(until).figures
    result = {"run": str(this.folder), "stage": until, **figures}
    emit(result, _figure_rows(this, until, records), as_json=as_json)
    return DONE


def open_run(recipe: str, out: Path | None, set_: list[str] | None, console: Console) -> Run:
    """Return the run that a recipe or run folder and the options stand for."""
    loaded = load_recipe(recipe, set_ or [])
    default = Path(recipe) if is_run_folder(recipe) else _RUNS_FOLDER / loaded.name
    return Run(out or default, loaded, console, world_from_environment())


def show_scorecard(this: Run, as_json: bool) -> int:
    """Print the scorecard of a run and return what it means as an exit code."""
    scorecard: Mapping[str, Any] = read_json(this.path(SCORECARD_FILE))
    emit(scorecard, scorecard_rows(scorecard, this.path(REPORT_FILE)), as_json=as_json)
    return DONE if scorecard["certified"] else NOT_PROVEN


def _figure_rows(this: Run, stage: str, records: Records) -> list[Row]:
    record = records.finished(stage)
    rows: list[Row] = [(stage, f"{record.seconds:.1f} s", str(this.folder))]
    for name, value in record.figures.items():
        if isinstance(value, float):
            rows.append((name, f"{value:,.4f}", ""))
        elif isinstance(value, int | str):
            rows.append((name, f"{value:,}" if isinstance(value, int) else value, ""))
    if stage == "pack":
        parts = record.figures["artifact_parts"].items()
        rows += [(part, f"{size:,} bytes", "part of the artifact") for part, size in parts]
        rows.append(("artifact", str(this.path(ARTIFACT_FILE)), ""))
    return rows
