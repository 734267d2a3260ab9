"""A run folder: its recipe, its lock, and the book of what each stage left in it.

`stages.json` says for every stage: the hash of what went in, the hash of every file that came out,
the seconds it took and its figures. A stage whose inputs and files still agree is not done again.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parbyte.base.errors import DataError, RecipeError, ResourceError
from parbyte.base.files import read_json, resource_error, sha256_file, write_bytes, write_json
from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.recipe import RECIPE_FILE, Recipe, load_recipe, recipe_to_toml

STAGES_FILE = "stages.json"
SCORECARD_FILE = "scorecard.json"
REPORT_FILE = "report.html"
SAMPLE_FILE = "sample.txt"
VERDICT_FILE = "verdict.json"
ARTIFACT_FILE = "model.parbyte"
BITSTREAM_FILE = "heldout.pby"
LEDGER_FILE = "measured.jsonl"
EXPLANATION_FILE = "explanation.json"
WEIGHTS_FILE = "weights.safetensors"
DATA_FOLDER = "data"
HELDOUT_FILE = "data/heldout.txt"
RESTORED_FILE = "restored.txt"
CRASH_FILE = "parbyte-crash.txt"
_LOCK_FILE = ".lock"
_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One run: where its files are, what was asked for, and who tells whom about it."""

    folder: Path
    recipe: Recipe
    console: Console
    world: World = field(default_factory=World)

    def path(self, name: str) -> Path:
        """Return the path of one of the run's files."""
        return self.folder / name


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the book says of one stage."""

    inputs: str
    """SHA-256 over the settings and files that the stage depends on."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Path relative to the run folder -> SHA-256."""
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Wall-clock seconds of the attempt that finished it; `train.json` counts resumed ones too."""
    peak_memory_bytes: int = 0
    finished: bool = False


class Records:
    """The book of finished and begun stages, kept in `stages.json`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STAGES_FILE
        self._records: dict[str, Record] = _read_records(self._path)

    def get(self, stage: str) -> Record | None:
        """Return what is known of a stage."""
        return self._records.get(stage)

    def finished(self, stage: str) -> Record:
        """Return the record of a stage that must be finished by now."""
        record = self._records.get(stage)
        assert record is not None and record.finished, f"stage '{stage}' is not finished"
        return record

    def figures(self, stage: str) -> Mapping[str, Any]:
        """Return the figures of a stage; empty if it is not finished."""
        record = self._records.get(stage)
        return record.figures if record is not None else {}

    def all(self) -> list[Record]:
        """Return the record of every stage."""
        return list(self._records.values())

    def put(self, stage: str, record: Record) -> None:
        """Set a stage's record and write the book."""
        self._records[stage] = record
        stages = {name: asdict(value) for name, value in self._records.items()}
        write_json(self._path, {"format": _FORMAT, "stages": stages})


def damaged_outputs(folder: Path, record: Record) -> list[str]:
    """Return the recorded files that are missing or no longer what they were."""
    return [
        name
        for name, sha256 in record.outputs.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256
    ]


@contextlib.contextmanager
def opened(run: Run) -> Iterator[None]:
    """Hold the run folder alone, with its recipe written and a killed run's scraps removed.

    Raises ResourceError when the folder cannot be used, or when another run is using it.
    """
    _refuse_foreign(run.folder)
    lock = run.folder / _LOCK_FILE
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResourceError(
                    f"another run is using '{run.folder}': wait for it or choose another --out"
                ) from None
            _remove_scraps(run.folder)
            _write_recipe(run)
            yield
    except OSError as error:
        if error.filename == str(lock) or error.filename == str(run.folder):
            raise resource_error(error, run.folder) from None
        raise


def _refuse_foreign(folder: Path) -> None:
    if not folder.is_dir() or (folder / RECIPE_FILE).is_file():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ResourceError(
            f"'{folder}' is not empty and no run folder (it holds no {RECIPE_FILE}): "
            "choose another --out"
        )


def _remove_scraps(folder: Path) -> None:
    for scrap in list(folder.rglob(".*.part")):
        if scrap.is_dir():
            shutil.rmtree(scrap)
        else:
            scrap.unlink(missing_ok=True)


def _write_recipe(run: Run) -> None:
    path = run.path(RECIPE_FILE)
    # An equal recipe keeps the origins that were written when the run began.
    with contextlib.suppress(RecipeError):
        if path.is_file() and load_recipe(path).sha256() == run.recipe.sha256():
            return
    write_bytes(path, recipe_to_toml(run.recipe).encode())


def _read_records(path: Path) -> dict[str, Record]:
    if not path.is_file():
        return {}
    try:
        book = read_json(path)
        if book["format"] != _FORMAT:
            return {}
        return {name: Record(**record) for name, record in book["stages"].items()}
    except (DataError, KeyError, TypeError):
        # A damaged book only costs time: every stage is done again.
        return {}
