"""`log.jsonl`: one line per log interval, appended while training runs."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from parbyte.base.files import resource_error, write_bytes


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """Where training stands."""

    step: int
    """Steps made."""
    seconds: float
    """Training seconds spent, pauses left out."""
    loss: float
    """Mean nats per token of the last steps."""
    lr: float
    """Rate of the matrices in the next step."""
    qat: bool
    """Whether the next step sees rounded weights."""
    tokens_per_s: float
    """Training speed since the line before."""
    dev_bpb: float | None
    """Bits per byte on the development slice, if it was measured now."""


class Journal:
    """The run's log, cut back to the step that a resumed run starts from."""

    def __init__(self, path: Path, step: int) -> None:
        """Keep the whole lines up to `step`; raises ResourceError if the file cannot be written."""
        self._path = path
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        write_bytes(path, "".join(line + "\n" for line in kept).encode())

    def append(self, line: LogLine) -> None:
        """Add one line; raises ResourceError if the disk refuses."""
        table = {key: _rounded(value) for key, value in asdict(line).items()}
        try:
            with self._path.open("a") as stream:
                stream.write(json.dumps(table) + "\n")
        except OSError as error:
            raise resource_error(error, self._path) from None


def _whole_lines(path: Path) -> list[str]:
    # A killed run may leave its last line without an end; nothing else can be damaged.
    text = path.read_text() if path.is_file() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _rounded(value: float | int | None) -> float | int | None:
    # Ten digits tell two loss curves apart and keep the lines readable.
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    return float(f"{value:.10g}")
