"""TOML tables <-> frozen dataclasses: strict keys, checked values, "did you mean".

A room's configuration is a frozen, keyword-only dataclass whose fields are declared with `setting`,
which carries the allowed range or choices; `read_table` turns a TOML table into it or raises a
RecipeError that names file, key, value, what is allowed and the nearest key. A field may also hold
a list of tables, each of which says by its `kind` which dataclass it is.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from parbyte.base.errors import RecipeError
from parbyte.base.units import parse_seconds, parse_size

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    unit: str = "",
    kinds: Mapping[str, type] | None = None,
    doc: str,
) -> Any:
    """Declare one field: default, range or choices, unit (bytes and seconds parse text).

    kinds: the field is a list of tables; each names one of these dataclasses by its key `kind`.
    """
    metadata = {"low": low, "high": high, "choices": choices, "unit": unit, "doc": doc}
    metadata["kinds"] = kinds
    if isinstance(default, list | dict):
        frozen = default
        return dataclasses.field(default_factory=lambda: frozen.copy(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_table(cls: type[T], table: Mapping[str, Any], *, where: str, section: str) -> T:
    """Build `cls` from a TOML table.

    where: the file (or "--set") that the user must edit. section: the table's name, e.g. "train".
    Raises RecipeError for an unknown key, a wrong type, a value out of range or a missing key.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(fields)}"
            raise RecipeError(f"{where}: unknown key '{_dotted(section, key)}'{hint}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(table[name], hints[name], field, where, _dotted(section, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where}: key '{_dotted(section, name)}' is missing: {_doc(field)}")
    try:
        return cls(**values)
    except RecipeError as error:
        raise RecipeError(f"{where}: [{section}] {error}") from None


def to_table(config: Any) -> dict[str, Any]:
    """Turn a configuration back into plain TOML/JSON values, every default visible."""
    return _plain(dataclasses.asdict(config))


def require(condition: bool, key: str, *, got: Any, want: str) -> None:
    """Raise a RecipeError naming a key whose value breaks a rule that spans several keys."""
    if not condition:
        raise RecipeError(f"'{key}' is {got!r}, must be {want}")


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _doc(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("doc", ""))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _convert(value: Any, hint: Any, field: dataclasses.Field[Any], where: str, key: str) -> Any:
    meta = field.metadata
    if meta.get("kinds") is not None:
        return _read_kinds(value, meta["kinds"], where, key)
    unit = meta.get("unit", "")
    try:
        if unit == "bytes":
            value = parse_size(value)
        elif unit == "seconds":
            value = parse_seconds(value)
    except RecipeError as error:
        raise RecipeError(f"{where}: '{key}': {error}") from None
    value = _match_type(value, hint, where, key)
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    for item in _items(value):
        if isinstance(item, int | float) and not isinstance(item, bool):
            too_low = low is not None and item < low
            if too_low or (high is not None and item > high) or item != item:
                raise RecipeError(
                    f"{where}: '{key}' is {item}, must be {_range(low, high)}{_in(unit)}"
                )
        if choices is not None and isinstance(item, str) and item not in choices:
            near = difflib.get_close_matches(item, choices, n=1)
            hint_text = f"; did you mean '{near[0]}'?" if near else ""
            raise RecipeError(
                f"{where}: '{key}' is '{item}', must be one of {', '.join(choices)}{hint_text}"
            )
    return value


def _read_kinds(value: Any, kinds: Mapping[str, type], where: str, key: str) -> tuple[Any, ...]:
    """Return the dataclasses that a list of tables stands for."""
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where}: '{key}' is {value!r}, must be a list of tables")
    read: list[Any] = []
    for place, table in enumerate(value):
        name = f"{key}[{place}]"
        kind = table.get("kind") if isinstance(table, Mapping) else None
        if not isinstance(kind, str) or kind not in kinds:
            near = difflib.get_close_matches(str(kind), kinds, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise RecipeError(
                f"{where}: '{name}' must be a table with kind = one of {', '.join(kinds)}, "
                f"got {kind!r}{hint}"
            )
        read.append(read_table(kinds[kind], table, where=where, section=name))
    return tuple(read)


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else [value]


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "a number"
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low}..{high}"


def _in(unit: str) -> str:
    return f" {unit}" if unit else ""


def _match_type(value: Any, hint: Any, where: str, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if value is None:
            return None
        return _match_type(value, options[0], where, key)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_match_type(v, typing.get_args(hint)[0], where, key) for v in value)
    if origin is dict and isinstance(value, dict):
        item = typing.get_args(hint)[1]
        return {str(k): _match_type(v, item, where, f"{key}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    want = names.get(hint, "a list" if origin is tuple else "a table")
    raise RecipeError(f"{where}: '{key}' is {value!r}, must be {want}")
