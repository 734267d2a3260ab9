"""What `benchmarks/quantize.py` left in a run folder: curves of bytes against bits per byte."""

from dataclasses import dataclass
from pathlib import Path

from parbyte.base.errors import DataError
from parbyte.base.files import read_json

QUANTIZE_FILE = "quantize.json"


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """One way to quantise and code a model, at several sizes."""

    name: str
    points: tuple[tuple[int, float], ...]
    """(bytes of the artifact, measured bits per byte), smallest first."""


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """All curves of one trained model, and the score of its float weights."""

    curves: tuple[RateCurve, ...]
    float_bpb: float


def read_rate_distortion(folder: Path) -> RateDistortion | None:
    """Read a run folder's curves; None if they were never measured.

    Raises DataError if the file is damaged.
    """
    path = folder / QUANTIZE_FILE
    if not path.is_file():
        return None
    table = read_json(path)
    try:
        curves = [
            RateCurve(
                name=str(name),
                points=tuple(sorted((int(p["bytes"]), float(p["bpb"])) for p in points)),
            )
            for name, points in table["ways"].items()
        ]
        return RateDistortion(
            curves=tuple(curve for curve in curves if len(curve.points) > 1),
            float_bpb=float(table["float_bpb"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"'{path}' is no result of benchmarks/quantize.py: delete it or measure again"
        ) from None
