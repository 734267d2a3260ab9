"""The only place that reads a clock: stop watches and a wall-clock budget that can pause."""

import time


def now_s() -> float:
    """Return a monotonic stamp in seconds; only differences mean anything."""
    return time.perf_counter()


class Stopwatch:
    """Seconds since construction, with pauses left out."""

    def __init__(self) -> None:
        self._started_at: float | None = now_s()
        self._banked_s = 0.0

    def elapsed_s(self) -> float:
        """Return the seconds counted so far."""
        running = now_s() - self._started_at if self._started_at is not None else 0.0
        return self._banked_s + running

    def pause(self) -> None:
        """Stop counting; does nothing if already paused."""
        self._banked_s = self.elapsed_s()
        self._started_at = None

    def resume(self) -> None:
        """Count again; does nothing if already running."""
        if self._started_at is None:
            self._started_at = now_s()

    def add_s(self, seconds: float) -> None:
        """Count time that an earlier process spent (resume from a checkpoint)."""
        self._banked_s += seconds
