"""The command `compare`: where the recipes of runs part, and what each run came to."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.files import read_json
from parbyte.base.log import Console, console_for
from parbyte.cli.entry import DONE
from parbyte.cli.options import JsonOption, QuietOption
from parbyte.cli.output import Row, emit
from parbyte.recipe import is_run_folder, load_recipe
from parbyte.run_folder import RECIPE_FILE, SCORECARD_FILE


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


_FIGURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "coded_bpb": ("coded bpb", "{:.4f}".format),
    "measured_bpb": ("measured bpb", "{:.4f}".format),
    "dev_bpb": ("dev bpb", "{:.4f}".format),
    "artifact_bytes": ("artifact bytes", "{:,}".format),
    "steps": ("steps", "{:,}".format),
    "train_seconds": ("train seconds", "{:.1f}".format),
    "certified": ("certified", _yes_or_no),
    "within_track": ("within the track", _yes_or_no),
}
"""Key of the scorecard -> what it is called, and how it is written."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has a scorecard."""

    folder: Path
    recipe: Mapping[str, Any]
    """Dotted key -> effective value."""
    figures: Mapping[str, Any]
    """Of _FIGURES; coded_bpb is None if the bitstream was not decoded back."""
    text: tuple[int, str]
    """Bytes and SHA-256 of the held-out text."""


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Finished runs.")],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show where the recipes of runs on the same held-out text part, and their numbers."""
    if len(runs) < 2:
        raise RecipeError("one run has nothing to be compared with: give two or more")
    console = console_for(quiet=quiet)
    finished = [_read_run(folder, console) for folder in runs]
    first = finished[0]
    for other in finished[1:]:
        if other.text != first.text:
            raise DataError(
                f"'{first.folder}' and '{other.folder}' held out different texts "
                f"({first.text[0]:,} and {other.text[0]:,} bytes): their scores do not compare"
            )
    certified = [run for run in finished if run.figures["certified"]]
    best = min(certified, key=lambda run: run.figures["coded_bpb"], default=None)
    result = {
        "runs": [{"run": str(run.folder), **run.figures} for run in finished],
        "best": str(best.folder) if best else None,
        "recipe": differences([run.recipe for run in finished]),
    }
    emit(result, comparison_rows(result), as_json=as_json)
    return DONE


def differences(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values differ, with each recipe's value; None where it has none."""
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key) for recipe in recipes] for key in keys}
    return {key: found for key, found in values.items() if any(v != found[0] for v in found)}


def comparison_rows(result: Mapping[str, Any]) -> list[Row]:
    """Return a line for each key and figure, the runs' values in their order."""
    runs = result["runs"]
    rows: list[Row] = [("run", _in_order([run["run"] for run in runs]), "")]
    for key, values in result["recipe"].items():
        rows.append((key, _in_order(["none" if v is None else _shown(v) for v in values]), ""))
    if not result["recipe"]:
        rows.append(("recipe", "the same", ""))
    for key, (name, write) in _FIGURES.items():
        values = ["none" if run[key] is None else write(run[key]) for run in runs]
        is_score = key == "coded_bpb"
        note = f"best: {result['best'] or 'none is certified'}" if is_score else ""
        rows.append((name, _in_order(values), note))
    return rows


def _read_run(folder: Path, console: Console) -> Finished:
    path = folder / SCORECARD_FILE
    if not is_run_folder(folder):
        raise DataError(f"'{folder}' is no run folder: it holds no {RECIPE_FILE}")
    if not path.is_file():
        raise DataError(f"'{folder}' has no {SCORECARD_FILE}: do `parbyte run {folder}` first")
    card, recipe = read_json(path), load_recipe(folder)
    try:
        figures = {key: card[key] for key in _FIGURES}
        if not card["checks"]["decoded_equal"]["passed"]:
            figures["coded_bpb"] = None
        text, scored = (card["text_bytes"], card["hashes"]["text"]), card["hashes"]["recipe"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' is damaged or of another version ({error}): do `parbyte run {folder}`"
        ) from None
    if scored != recipe.sha256():
        console.say(f"note: '{path}' is of another recipe than '{folder / RECIPE_FILE}' is now")
    return Finished(folder=folder, recipe=dict(_flat(recipe.tables())), figures=figures, text=text)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; a stage of a stack is `predict.stack[0]`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{place}]")
    else:
        yield key, value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _in_order(values: Sequence[str]) -> str:
    return " -> ".join(values)
