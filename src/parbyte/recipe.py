"""Recipes: one TOML file that names a track and says everything else, room by room.

Flows in: a recipe file (or a shipped name) and `--set section.key=value` overrides.
Flows out: a checked, frozen `Recipe` that knows where each of its values came from.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parbyte.base.errors import RecipeError
from parbyte.base.files import sha256_bytes
from parbyte.base.settings import read_table, to_table
from parbyte.codec.config import CodecConfig
from parbyte.model.config import ModelConfig
from parbyte.pack.config import PackConfig
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.config import PredictConfig
from parbyte.predict.expert_config import COUNTING
from parbyte.quant.config import FLOAT_BITS, ROLES, QuantConfig
from parbyte.text.config import TextConfig
from parbyte.track import Track, load_track, read_toml, resolve_named_file
from parbyte.train.config import TrainConfig

RECIPES_FOLDER = Path(__file__).parent / "recipes"
RECIPE_FILE = "recipe.toml"
SECTIONS: dict[str, type] = {
    "text": TextConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "quant": QuantConfig,
    "pack": PackConfig,
    "predict": PredictConfig,
    "codec": CodecConfig,
}
_FILE, _SET, _TRACK = "file", "--set", "track"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named system: its track and the settings of every room."""

    name: str
    track: Track
    text: TextConfig
    model: ModelConfig
    train: TrainConfig
    quant: QuantConfig
    pack: PackConfig
    predict: PredictConfig
    codec: CodecConfig
    origins: Mapping[str, str]
    """Dotted key -> "file", "--set" or "track"; a key that is absent has its default."""

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return every section with every effective value."""
        return {name: to_table(getattr(self, name)) for name in ("track", *SECTIONS)}

    def sha256(self) -> str:
        """Return the hash of the effective values; their origins and the name do not count."""
        return sha256_bytes(json.dumps(self.tables(), sort_keys=True).encode())


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by path, by shipped name, or from a run folder that holds one.

    overrides: "section.key=value" strings; values are TOML, anything else is a plain string.
    Raises RecipeError with file, key, value, what is allowed and the nearest key.
    """
    path = find_recipe(source)
    table = dict(read_toml(path))
    changes = _parse_overrides(overrides)
    name = str(table.pop("name", path.stem))
    track = _read_track(table.pop("track", None), changes.pop("track", None), path)
    _check_sections(table, str(path))
    origins: dict[str, str] = {}
    rooms: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        values = _section_values(table.get(section, {}), section, str(path))
        changed = changes.get(section, {})
        where = f"{path} with {_SET}" if changed else str(path)
        if section == "text" and "corpus" not in {**values, **changed}:
            values = {"corpus": track.corpus, **values}
            origins["text.corpus"] = _TRACK
        for key in table.get(section, {}):
            origins[f"{section}.{key}"] = _FILE
        for key in changed:
            origins[f"{section}.{key}"] = _SET
        rooms[section] = read_table(cls, {**values, **changed}, where=where, section=section)
    recipe = Recipe(name=name, track=track, origins=origins, **rooms)
    _check_budget(recipe, str(path))
    _check_stack(recipe, str(path))
    _check_loop(recipe, str(path))
    _check_smear(recipe, str(path))
    _check_qat(recipe, str(path))
    _check_prune(recipe, str(path))
    return recipe


def find_recipe(source: str | Path) -> Path:
    """Return the recipe file that a path, a shipped name or a run folder stands for."""
    inside = Path(source) / RECIPE_FILE
    if inside.is_file():
        return inside
    if Path(source).is_dir():
        raise RecipeError(f"'{source}' is no run folder: it holds no {RECIPE_FILE}")
    return resolve_named_file(str(source), RECIPES_FOLDER, kind="recipe")


def is_run_folder(source: str | Path) -> bool:
    """Say whether a path is a run folder, i.e. holds a recipe."""
    return (Path(source) / RECIPE_FILE).is_file()


def recipe_to_toml(recipe: Recipe) -> str:
    """Write the effective recipe as TOML, each value with its origin in a comment."""
    lines = [
        "# The effective recipe of this run: every value, and where it came from.",
        f"name = {_toml(recipe.name)}",
    ]
    for section, table in recipe.tables().items():
        lines += ["", f"[{section}]"]
        for key, value in table.items():
            usual = "track" if section == "track" else "default"
            origin = recipe.origins.get(f"{section}.{key}", usual)
            lines.append(f"{key} = {_toml(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def _read_track(given: Any, changed: Any, path: Path) -> Track:
    where = str(path)
    if isinstance(changed, str):
        given, changed, where = changed, None, f"{_SET} track"
    if given is None:
        raise RecipeError(f"{path}: key 'track' is missing: the name of a track, such as \"tiny\"")
    if isinstance(given, str):
        track = load_track(given, where=where)
    elif isinstance(given, dict):
        track = read_table(Track, given, where=where, section="track")
    else:
        raise RecipeError(f"{where}: 'track' is {given!r}, must be the name of a track")
    if not changed:
        return track
    # A changed budget is no longer the named track: its scores do not compare.
    values = {**to_table(track), "name": f"{track.name}, changed", **changed}
    return read_table(Track, values, where=f"{path} with {_SET}", section="track")


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn "section.key=value" strings into {section: {key: value}}; "track=name" is a string."""
    tables: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if section == "track" and equals and not dot:
            tables["track"] = value.strip()
            continue
        if not equals or not dot or not name:
            raise RecipeError(f"{_SET} '{text}': must be section.key=value, e.g. train.seconds=60")
        _check_sections({section: {}}, f"{_SET} {text}")
        if isinstance(tables.get(section), str):
            raise RecipeError(f"{_SET} '{text}': the track is already chosen by name")
        tables.setdefault(section, {})[name] = _parse_value(value.strip())
    return tables


def _parse_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if set(table) == {"value"} else text


def _check_sections(table: Mapping[str, Any], where: str) -> None:
    known = ("name", "track", *SECTIONS)
    for section in table:
        if section not in known:
            near = difflib.get_close_matches(section, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown section '{section}'; {hint}")


def _section_values(table: Any, section: str, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: '{section}' is {table!r}, must be a table [{section}]")
    return table


def _check_budget(recipe: Recipe, where: str) -> None:
    limit = recipe.track.train_seconds
    # With `steps` there is no clock to obey; the scorecard says what the training took.
    seconds = recipe.train.seconds if recipe.train.steps == 0 else 0.0
    if seconds + recipe.quant.heal_seconds > limit:
        healing = recipe.quant.heal_seconds
        plus = f" + 'quant.heal_seconds' {healing:g}" if healing else ""
        raise RecipeError(
            f"{where}: 'train.seconds' is {seconds:g}{plus}, track '{recipe.track.name}' "
            f"allows {limit:g}; lower it or choose another track"
        )


def _check_stack(recipe: Recipe, where: str) -> None:
    num_layers, kinds = recipe.model.num_layers, [stage.kind for stage in recipe.predict.stack]
    if recipe.pack.prior_bytes and not set(kinds) & set(COUNTING):
        raise RecipeError(
            f"{where}: 'pack.prior_bytes' is {recipe.pack.prior_bytes:,}, but 'predict.stack' has "
            f"no stage that counts ({', '.join(COUNTING)}); add one, or set it to 0"
        )
    for place, stage in enumerate(recipe.predict.stack):
        trains_last = isinstance(stage, TTTConfig) and stage.train == "last"
        if trains_last and stage.last_blocks > num_layers:
            raise RecipeError(
                f"{where}: 'predict.stack[{place}].last_blocks' is {stage.last_blocks}, "
                f"must be at most model.num_layers = {num_layers}"
            )


def _check_loop(recipe: Recipe, where: str) -> None:
    if recipe.train.loop_at > 0 and not recipe.model.loop:
        raise RecipeError(
            f"{where}: 'train.loop_at' is {recipe.train.loop_at:g}, but 'model.loop' is empty; "
            "set it, or leave 'train.loop_at' out"
        )


def _check_smear(recipe: Recipe, where: str) -> None:
    start, smear = recipe.train.smear_start, recipe.model.smear
    if start != TrainConfig.smear_start and smear != "static":
        raise RecipeError(
            f"{where}: 'train.smear_start' is {start:g}, but 'model.smear' is '{smear}'; "
            "set it to 'static', or leave 'train.smear_start' out"
        )


def _check_qat(recipe: Recipe, where: str) -> None:
    """Refuse a training on the packer's grid where that is known only after training."""
    if recipe.train.qat == "off":
        return
    quant, qat = recipe.quant, f"'train.qat' is '{recipe.train.qat}'"
    fits = recipe.pack.fit and quant.clip == "std"
    late = "chooses the grid after training"
    other = "makes a grid that training does not look at"
    bits = [quant.bits(role) for role in ROLES]
    for key, broken, what, remedy in (
        ("quant.allocation", quant.allocation != "std", late, "'std'"),
        ("pack.fit", fits, f"{late} with 'quant.clip' = 'std'", "false, or the clip to 'search'"),
        ("quant.grid", quant.grid != "uniform", other, "'uniform'"),
        ("quant.clip", quant.clip == "mean", other, "'search'"),
        ("quant.group", quant.group > 0, other, "0"),
        ("quant.awq_columns", quant.awq_columns > 0, other, "0"),
        ("quant.clip_hessian", quant.clip_hessian > 0, other, "0"),
        ("quant.bits_mlp", min(bits) == FLOAT_BITS, "and the others keep float16", "fewer bits"),
    ):
        if broken:
            raise RecipeError(f"{where}: {qat}, but '{key}' {what}; set it to {remedy}")


def _check_prune(recipe: Recipe, where: str) -> None:
    if recipe.pack.prune and recipe.quant.grid != "uniform":
        raise RecipeError(
            f"{where}: 'pack.prune' is true, but 'quant.grid' is \"{recipe.quant.grid}\": only a "
            '"uniform" grid has codes of +-1 that can be left out'
        )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, str):
        # JSON strings are TOML basic strings, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
