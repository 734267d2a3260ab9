"""What a run folder says about its run, read once and checked at the door."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parbyte.base.errors import DataError
from parbyte.base.files import read_json
from parbyte.base.units import bits_per_byte
from parbyte.report.figures import CurvePoint
from parbyte.report.heatmap import HeatMap, read_heat_map
from parbyte.report.verdict_part import read_verdict
from parbyte.score.ledger import read_ledger

HELDOUT_FILE = Path("data") / "heldout.txt"
_EXTRACT_BYTES = 400
_EXTRACT_CHARACTERS = 88


@dataclass(frozen=True)
class DocumentRate:
    """One held-out document: where it starts in the text, its length and its rate."""

    start: int
    bytes: int
    bpb: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The files of a run folder that a report is made from, as values."""

    folder: Path
    scorecard: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    """Stage -> its record: seconds, peak memory, figures."""
    curve: list[CurvePoint]
    documents: list[DocumentRate]
    heat: HeatMap
    recipe: str
    sample: str
    """Text that the model wrote; empty if there is none."""
    verdict: Mapping[str, Any] | None
    """What `parbyte audit` said of this artifact; None if it was not asked."""

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of training text that a token stands for on average; None if not known."""
        figures = self.stages.get("data", {}).get("figures", {})
        num_bytes, tokens = figures.get("train_bytes", 0), figures.get("train_tokens", 0)
        return num_bytes / tokens if num_bytes and tokens else None


def read_evidence(folder: Path) -> Evidence:
    """Read a run folder whose proof was attempted.

    Raises DataError naming the file that is missing or damaged.
    """
    scorecard, book = read_json(folder / "scorecard.json"), read_json(folder / "stages.json")
    if not isinstance(scorecard, dict) or not isinstance(book, dict):
        raise DataError(f"'{folder}' holds a damaged scorecard.json or stages.json: run it again")
    sample = folder / "sample.txt"
    return Evidence(
        folder=folder,
        scorecard=scorecard,
        stages=book.get("stages", {}),
        curve=_read_curve(folder / "log.jsonl"),
        documents=list(_document_rates(folder / "measured.jsonl")),
        heat=read_heat_map(folder / "explanation.json"),
        recipe=(folder / "recipe.toml").read_text(encoding="utf-8"),
        sample=sample.read_text(encoding="utf-8", errors="replace") if sample.is_file() else "",
        verdict=read_verdict(folder, scorecard["hashes"]["artifact"]),
    )


def read_heldout(folder: Path, limit: int) -> bytes:
    """Return the first `limit` bytes of the held-out text."""
    try:
        with (folder / HELDOUT_FILE).open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise DataError(f"cannot read '{folder / HELDOUT_FILE}': {error.strerror}") from None


def read_extract(folder: Path, document: DocumentRate) -> str:
    """Return the beginning of a held-out document as one line of text."""
    with (folder / HELDOUT_FILE).open("rb") as stream:
        stream.seek(document.start)
        head = stream.read(min(document.bytes, _EXTRACT_BYTES))
    text = " ".join(head.decode("utf-8", errors="replace").split())
    if len(text) <= _EXTRACT_CHARACTERS:
        return text
    cut = text[:_EXTRACT_CHARACTERS]
    # A cut word would look like an error of the text; a single long word is cut all the same.
    return cut[: max(cut.rfind(" "), _EXTRACT_CHARACTERS // 2)] + " ..."


def _read_curve(path: Path) -> list[CurvePoint]:
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            CurvePoint(seconds=line["seconds"], loss_nats=line["loss"], dev_bpb=line["dev_bpb"])
            for line in lines
        ]
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"'{path}' is no training log: train again to write a new one") from None


def _document_rates(path: Path) -> Iterator[DocumentRate]:
    start = 0
    for document in read_ledger(path).documents:
        if document.bytes:
            rate = bits_per_byte(document.nats, document.bytes)
            yield DocumentRate(start, document.bytes, rate)
        start += document.bytes
