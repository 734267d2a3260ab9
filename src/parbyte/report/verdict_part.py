"""The audit's verdict as the page shows it: `verdict.json`, if it speaks of this run's artifact."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parbyte.base.errors import DataError
from parbyte.base.files import read_json

VERDICT_FILE = "verdict.json"
_FORMAT = 1
_SHOWN_OF_A_HASH = 12


def read_verdict(folder: Path, artifact_sha256: str) -> Mapping[str, Any] | None:
    """Return a run's verdict; None if there is none, or if it is of another artifact or format."""
    path = folder / VERDICT_FILE
    if not path.is_file():
        return None
    try:
        verdict = read_json(path)
    except DataError:
        # It can be had again, and everything else on the page is sound without it.
        return None
    wanted = {"format": _FORMAT, "artifact_sha256": artifact_sha256}
    is_ours = isinstance(verdict, dict) and {name: verdict.get(name) for name in wanted} == wanted
    return verdict if is_ours else None


def show_verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template needs: the word, findings, checks with a line of figures, gaps."""
    checks = [
        {**check, "shown": "; ".join(_figures("", check["figures"]))} for check in verdict["checks"]
    ]
    colors = {"certified": "good", "not proven": "warn", "invalid": "bad"}
    return {**verdict, "checks": checks, "color": colors[verdict["verdict"]]}


def _figures(name: str, value: Any) -> Iterator[str]:
    """Yield "name value" of each figure, those of inner tables with both names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _figures(f"{name} {key.replace('_', ' ')}".strip(), inner)
    elif isinstance(value, list):
        yield f"{name}: {len(value):,}" if value else f"{name}: none"
    elif isinstance(value, str) and "sha256" in name:
        yield f"{name} {value[:_SHOWN_OF_A_HASH]}"
    elif isinstance(value, bool) or value is None:
        yield f"{name}: {'not given' if value is None else 'yes' if value else 'no'}"
    else:
        yield f"{name} {_number(value)}"


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
