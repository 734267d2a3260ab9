"""A score with its evidence: nats per document, and what kind of number their sum is."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from parbyte.base.errors import DataError
from parbyte.base.files import atomic_file
from parbyte.base.units import bits_per_byte

Kind = Literal["claimed", "measured", "coded"]


@dataclass(frozen=True)
class DocumentScore:
    """One document: tokens scored in it (its BOS too, where that is coded), bytes, nats."""

    tokens: int
    bytes: int
    nats: float


@dataclass(frozen=True)
class Ledger:
    """The nats of a text.

    kind: claimed (as a published scorer computes them), measured (a causal predictor, many
    positions at once) or coded (8 ln 2 x the bytes of a bitstream that was decoded back).
    nats: float64 sum over all scored tokens. num_bytes: text bytes those tokens stand for.
    """

    kind: Kind
    nats: float
    num_bytes: int
    num_tokens: int
    documents: list[DocumentScore] = field(default_factory=list)

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return bits_per_byte(self.nats, self.num_bytes)


def ledger_of(kind: Kind, documents: Sequence[DocumentScore]) -> Ledger:
    """Return the ledger whose sums are those of its documents."""
    return Ledger(
        kind,
        math.fsum(document.nats for document in documents),
        sum(document.bytes for document in documents),
        sum(document.tokens for document in documents),
        list(documents),
    )


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write a ledger as JSON lines, whole or not at all: the sums, then one line a document."""
    sums = {key: value for key, value in asdict(ledger).items() if key != "documents"}
    with atomic_file(path, "w") as stream:
        stream.write(json.dumps({**sums, "num_documents": len(ledger.documents)}) + "\n")
        stream.writelines(json.dumps(asdict(document)) + "\n" for document in ledger.documents)


def read_ledger(path: Path) -> Ledger:
    """Read what `write_ledger` wrote; DataError if it is missing, cut short or foreign."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return _to_ledger(lines)
    except OSError as error:
        raise DataError(f"cannot read ledger '{path}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise DataError(f"'{path}' is no ledger: score again to write a new one") from None


def _to_ledger(lines: list[dict[str, Any]]) -> Ledger:
    sums = dict(lines[0])
    num_documents = int(sums.pop("num_documents"))
    if sums["kind"] not in get_args(Kind) or num_documents != len(lines) - 1:
        raise ValueError
    return Ledger(**sums, documents=[DocumentScore(**line) for line in lines[1:]])
