"""Tracks: the budgets (corpus, bytes, seconds, hardware) that recipes compete within.

A track is a TOML file; the shipped ones live in `parbyte/tracks` and are known by name.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parbyte.base.errors import RecipeError
from parbyte.base.settings import read_table, setting

TRACKS_FOLDER = Path(__file__).parent / "tracks"


@dataclass(frozen=True, kw_only=True)
class Track:
    """A budget: what may be read, how large the artifact and how long each part may be."""

    name: str = setting("unnamed", doc="the track's name")
    corpus: str = setting(doc="'kjv', 'fineweb', or the path of a corpus")
    cap_bytes: int = setting(low=1, unit="bytes", doc="the artifact's limit in bytes")
    train_seconds: float = setting(low=0.0, unit="seconds", doc="wall-clock limit of training")
    score_seconds: float = setting(low=0.0, unit="seconds", doc="wall-clock limit of scoring")
    decode_seconds: float = setting(low=0.0, unit="seconds", doc="wall-clock limit of decoding")
    cores: int = setting(0, low=0, doc="processor cores that count; 0: not limited")
    gpus: int = setting(0, low=0, doc="GPUs that count")
    text_bytes: int = setting(0, low=0, doc="bytes of the held-out text; 0: any")
    text_sha256: str = setting("", doc="SHA-256 of the held-out text; empty: any")
    hardware: str = setting("any", doc="the machine in words")


def load_track(name_or_path: str, *, where: str) -> Track:
    """Load a shipped track by name or a track file by path.

    where: the file (or "--set") that names the track, for the error message.
    Raises RecipeError for an unknown name, with the nearest one.
    """
    path = resolve_named_file(name_or_path, TRACKS_FOLDER, kind="track", where=where)
    table = read_toml(path)
    return read_table(Track, {"name": path.stem, **table}, where=str(path), section="")


def list_names(folder: Path) -> list[str]:
    """Return the names of the shipped recipes or tracks."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def resolve_named_file(name_or_path: str, folder: Path, *, kind: str, where: str = "") -> Path:
    """Find a TOML file by path, or a shipped one by name.

    Raises RecipeError that lists the shipped names and the nearest one.
    """
    given = Path(name_or_path)
    if given.is_file():
        return given
    shipped = folder / f"{name_or_path}.toml"
    names = list_names(folder)
    if name_or_path in names:
        return shipped
    near = difflib.get_close_matches(given.stem, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    prefix = f"{where}: " if where else ""
    raise RecipeError(
        f"{prefix}no {kind} '{name_or_path}': neither a file nor one of {', '.join(names)}{hint}"
    )


def read_toml(path: Path) -> Mapping[str, Any]:
    """Read a TOML file; RecipeError with file and line if it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read '{path}': {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"'{path}' is no TOML: it is not UTF-8 text, {error.reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"'{path}' is no TOML: {error}") from None
    except RecursionError:
        raise RecipeError(f"'{path}' is no recipe: its values are nested too deeply") from None
