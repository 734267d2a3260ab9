"""Frames side by side: workers with a predictor each; frames are handed out and come back in order.

Only the portable engine's rows do not depend on who computes them beside whom, so only its frames
are shared out; the torch engine's bits hold for its own number of threads, and it works alone.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from parbyte.base.clock import Stopwatch
from parbyte.base.log import Console, Progress
from parbyte.codec.methods import Methods
from parbyte.pack.artifact import Artifact
from parbyte.predict.build import read_settings

Item = TypeVar("Item")
Result = TypeVar("Result")
_NEWS_EVERY_S = 5.0


class Crew:
    """One worker, or several that code frames at the same time; the bytes are the same."""

    def __init__(self, artifact: Artifact, console: Console, jobs: int = 1) -> None:
        """jobs: frames at once, each with a thread and a predictor of its own."""
        if read_settings(artifact.predict).engine != "portable":
            jobs = 1
        self._console = console
        self._stop = Event()
        if jobs == 1:
            self._workers = [Methods(artifact, console)]
        else:
            silent = _WorkersConsole(quiet=True, stop=self._stop)
            self._workers = [Methods(artifact, silent, decoding_threads=1) for _ in range(jobs)]

    @property
    def tokens(self) -> int:
        """Tokens that the model coded so far."""
        return sum(worker.tokens for worker in self._workers)

    @property
    def nats(self) -> float:
        """Ideal codelength of those tokens."""
        return sum(worker.nats for worker in self._workers)

    def map(
        self, work: Callable[[Methods, Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        """Yield work(worker, item) of each item, in order; no more items are taken than workers.

        Close the generator to stop the workers; the first error ends it.
        """
        if len(self._workers) == 1:
            yield from (work(self._workers[0], item) for item in items)
        else:
            yield from self._share_out(work, items)

    def _share_out(
        self, work: Callable[[Methods, Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        idle: SimpleQueue[Methods] = SimpleQueue()
        for worker in self._workers:
            idle.put(worker)

        def do(item: Item) -> Result:
            worker = idle.get()
            try:
                return work(worker, item)
            finally:
                idle.put(worker)

        waiting: deque[Future[Result]] = deque()
        failure: Exception | None = None
        left, news = iter(items), _News(self._console)
        with ThreadPoolExecutor(len(self._workers), thread_name_prefix="parbyte-frame") as pool:
            try:
                while True:
                    while not failure and len(waiting) < len(self._workers):
                        try:
                            waiting.append(pool.submit(do, next(left)))
                        except Exception as error:  # what came before it is still good
                            failure = error
                    if not waiting:
                        break
                    yield waiting.popleft().result()
                    news.tell(self.tokens)
            except BaseException:
                # Frames take minutes: those that have begun stop at their next chunk.
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        if not isinstance(failure, StopIteration):
            assert failure is not None
            raise failure


class _News:
    """Tells now and then how far the workers are."""

    def __init__(self, console: Console) -> None:
        self._console, self._watch = console, Stopwatch()
        self._frames, self._told_s = 0, 0.0

    def tell(self, tokens: int) -> None:
        """One more frame is done, and so many tokens in all."""
        self._frames += 1
        now_s = self._watch.elapsed_s()
        if now_s - self._told_s >= _NEWS_EVERY_S:
            self._told_s = now_s
            self._console.say(f"frames {self._frames:,}, {tokens / now_s:,.0f} tokens/s")


class _Stopped(Exception):
    """A worker's way out of a frame that nobody waits for."""


@dataclass(frozen=True)
class _WorkersConsole(Console):
    """Says nothing; where progress is reported, a worker that is to stop does."""

    stop: Event = field(default_factory=Event)

    def progress(self, title: str, total: float) -> Progress:
        """See Console."""
        return _WorkersProgress(self, self.stop)


class _WorkersProgress(Progress):
    def __init__(self, console: Console, stop: Event) -> None:
        super().__init__(console, "", 1.0)
        self._stop = stop

    def update(self, done: float, figures: Mapping[str, str] | None = None) -> None:
        """Raise if the worker is to stop."""
        if self._stop.is_set():
            raise _Stopped
