"""A passage coloured by what its tokens cost, and what each stage of the predictor was worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from parbyte.base.errors import DataError
from parbyte.base.files import read_json

_DEAREST_BITS = 12.0
"""Tokens of so many bits, and dearer ones, have the strongest colour."""
_NOTEWORTHY_BITS = 0.5
"""A stage that saved a token less than that does not sign it."""


@dataclass(frozen=True)
class StageLine:
    """One stage in the table: its rate, its gain over the stage below, its expense."""

    name: str
    bpb: float
    gain: float | None
    seconds: float
    state_bytes: int


@dataclass(frozen=True)
class Cell:
    """One token of the passage: how strong its colour is, the stage that saved most, a legend."""

    text: str
    heat: float
    payer: int | None
    legend: str


@dataclass(frozen=True)
class HeatMap:
    """The table and the passage; no passage if the text was empty."""

    stages: tuple[StageLine, ...]
    cells: tuple[Cell, ...]


def read_heat_map(path: Path) -> HeatMap:
    """Read a run's explanation.json; DataError if it is missing or damaged."""
    table = read_json(path)
    try:
        return _heat_map(table)
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(f"'{path}' is damaged: score again to write a new one") from None


def _heat_map(table: Mapping[str, Any]) -> HeatMap:
    stages: list[StageLine] = []
    for stage in table["stages"]:
        gain = stage["bpb"] / stages[-1].bpb - 1 if stages and stages[-1].bpb else None
        stages.append(StageLine(gain=gain, **stage))
    names = [stage.name for stage in stages]
    bits_NS = list(zip(*table["bits"], strict=True))
    cells = tuple(
        _cell(str(text), bits_S, names)
        for text, bits_S in zip(table["pieces"], bits_NS, strict=True)
    )
    return HeatMap(tuple(stages), cells)


def _cell(text: str, bits_S: Sequence[float], names: Sequence[str]) -> Cell:
    saved = [below - above for below, above in pairwise(bits_S)]
    best = max(range(len(saved)), key=saved.__getitem__, default=None)
    payer = None if best is None or saved[best] < _NOTEWORTHY_BITS else best + 1
    legend = ", ".join(f"{name} {bits:.2f}" for name, bits in zip(names, bits_S, strict=True))
    heat = min(1.0, max(0.0, bits_S[-1] / _DEAREST_BITS))
    return Cell(text, heat, payer, f"bits: {legend}")
