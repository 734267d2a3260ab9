"""What a person sees while work goes on: a rich bar on a terminal, plain lines elsewhere.

Messages and progress go to stderr, results to stdout.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from parbyte.base.clock import now_s

_PLAIN_INTERVAL_S = 5.0
_STEADY_S = 3.0
"""How long work must have gone on before its pace says when it will end."""


@dataclass(frozen=True)
class Console:
    """How this command talks: not at all, in plain lines, or with live bars."""

    quiet: bool = False
    live: bool = False

    def say(self, text: str) -> None:
        """Print one line of news, unless quiet."""
        if not self.quiet:
            # One write: an interrupt between text and line end would join two messages.
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def progress(self, title: str, total: float) -> "Progress":
        """Start a progress display over `total` units of work; use it in a `with` block."""
        return Progress(self, title, total)


def console_for(*, quiet: bool) -> Console:
    """Choose live bars on a terminal, plain lines on anything else."""
    return Console(quiet=quiet, live=not quiet and sys.stderr.isatty())


class Progress:
    """Work done so far, with figures beside it (loss, bpb, tokens/s) and the time left."""

    def __init__(self, console: Console, title: str, total: float) -> None:
        self._console = console
        self._title = title
        self._total = max(total, 1e-9)
        self._said_at = now_s()
        self._first: tuple[float, float] | None = None
        self._is_finished = False
        self._bar = None
        if console.live:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=RichConsole(stderr=True),
            )
            self._task = self._bar.add_task(title, total=self._total, figures="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, figures: Mapping[str, str] | None = None) -> None:
        """Show that `done` of the total is finished, with a few named figures."""
        shown = "  ".join(f"{k} {v}" for k, v in (figures or {}).items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=shown)
            return
        now = now_s()
        if self._first is None and done > 0:
            self._first = now, done
        finishes = done >= self._total and not self._is_finished
        if self._console.quiet or (now - self._said_at < _PLAIN_INTERVAL_S and not finishes):
            return
        self._said_at, self._is_finished = now, done >= self._total
        percent = min(100.0, 100.0 * done / self._total)
        left = self._seconds_left(now, done)
        end = "" if left is None else f"  {left:.0f} s left"
        self._console.say(f"{self._title} {percent:5.1f}%  {shown}{end}")

    def _seconds_left(self, now: float, done: float) -> float | None:
        """Return the time left at the pace since the first work was seen; None: not yet known.

        What comes before the first work, such as compiling kernels, is no part of the pace.
        """
        if done >= self._total:
            return 0.0
        first_at, first = self._first or (now, done)
        if now - first_at < _STEADY_S or done <= first:
            return None
        return (now - first_at) * (self._total - done) / (done - first)
