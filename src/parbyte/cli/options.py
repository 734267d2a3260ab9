"""Arguments and options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.settings import read_table
from parbyte.codec.bitstream import MAX_LANES
from parbyte.codec.config import CodecConfig
from parbyte.run_folder import ARTIFACT_FILE

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe, a recipe file or a run folder.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN", help="Run folder; default: runs/NAME of the recipe."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value, e.g. train.seconds=60; repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An artifact (model.parbyte) or a run folder.")
]
LanesOption = Annotated[
    int, typer.Option(min=1, max=MAX_LANES, help="Streams coded side by side: more are faster.")
]
DeviceOption = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda; of models of the torch engine.")
]
ThreadsOption = Annotated[int, typer.Option(min=1, max=256, help="CPU threads.")]

JobsOption = Annotated[
    int, typer.Option(min=0, max=256, help="Frames coded at once; 0: one a core. Same bytes.")
]


def codec_config(lanes: int, threads: int, device: str, frame_bytes: int) -> CodecConfig:
    """Return the settings that the options stand for. Raises RecipeError."""
    settings = {"lanes": lanes, "threads": threads, "device": device, "frame_bytes": frame_bytes}
    return read_table(CodecConfig, settings, where="options", section="codec")


def refuse_options(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuse options that would be ignored: raise RecipeError with the first that was given."""
    flags = {param.name: param.opts[0] for param in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise RecipeError(f"{flags[name]} {reason}")


def artifact_path(model: Path) -> Path:
    """Return the artifact that a path stands for: itself, or the one in a run folder."""
    path = model / ARTIFACT_FILE if model.is_dir() else model
    if not path.is_file():
        raise DataError(f"no artifact '{path}': give a model.parbyte or a finished run folder")
    return path


def input_file(path: Path) -> Path:
    """Return the path of a file that must exist."""
    if not path.is_file():
        raise DataError(f"no file '{path}'")
    return path
