"""Somebody else's scorer: a function, or a command that speaks JSON lines (docs/audit.md)."""

import importlib
import inspect
import json
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parbyte.audit.scorer import Scorer, Scores, Stream, behind_first, to_scores
from parbyte.base.errors import DataError, RecipeError

ScoreFunction = Callable[..., Any]
_SHOWN = 120


class FunctionScorer(Scorer):
    """A function from uint16[N] to nats float64[N], or to a mapping with more (docs/audit.md).

    One of two parameters takes inputs and targets, uint16[N - 1] each, and prices the targets.
    """

    def __init__(
        self,
        function: ScoreFunction,
        *,
        name: str,
        vocab_size: int,
        bos_id: int | None = None,
        chunk: int = 0,
        window: int = 0,
        is_per_document: bool = False,
    ) -> None:
        self.name, self.vocab_size, self.bos_id = name, vocab_size, bos_id
        self.chunk, self.window, self.is_per_document = chunk, window, is_per_document
        self.takes_apart = _num_parameters(function) == 2
        self._function = function

    def score(self, stream_N: Stream) -> Scores:
        """See Scorer."""
        if self.takes_apart:
            return self.score_apart(stream_N[:-1], stream_N[1:])
        return to_scores(self._call(stream_N.copy()), len(stream_N), self.name)

    def score_apart(self, inputs_M: Stream, targets_M: Stream) -> Scores:
        """See Scorer."""
        # A stream of one token asks for nothing.
        nats_M = self._call(inputs_M.copy(), targets_M.copy()) if len(targets_M) else []
        return behind_first(to_scores(nats_M, len(targets_M), self.name))

    def _call(self, *streams: Stream) -> Any:
        try:
            return self._function(*streams)
        except Exception as error:  # it is somebody else's, and may raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"'{place.filename}', line {place.lineno}"
            raise DataError(
                f"scorer '{self.name}' failed: {_in_a_line(error)} ({where})"
            ) from error


class CommandScorer(Scorer):
    """A command that answers one line for each line that it gets; close it when done."""

    def __init__(
        self, command: str, *, vocab_size: int, bos_id: int | None = None, chunk: int = 0
    ) -> None:
        self.name, self.vocab_size, self.bos_id = command, vocab_size, bos_id
        self.chunk = chunk
        words = shlex.split(command)
        if not words:
            raise RecipeError("--command is empty: give the command that scores")
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise RecipeError(f"cannot start '{command}': {error.strerror}") from None

    def score(self, stream_N: Stream) -> Scores:
        """See Scorer. Raises DataError if the command ends or answers with something else."""
        answer = self._ask({"tokens": stream_N.tolist()})
        if isinstance(answer, dict) and answer.get("apart") is True:
            self.takes_apart = True
        return to_scores(answer, len(stream_N), self.name)

    def score_apart(self, inputs_M: Stream, targets_M: Stream) -> Scores:
        """See Scorer. Raises DataError as `score` does."""
        answer = self._ask({"inputs": inputs_M.tolist(), "targets": targets_M.tolist()})
        return behind_first(to_scores(answer, len(targets_M), self.name))

    def _ask(self, question: dict[str, Any]) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise DataError(f"'{self.name}' ended without an answer (see its messages)")
        try:
            answer = json.loads(line)
        except ValueError:
            raise DataError(f"'{self.name}' answered no JSON: {line[:_SHOWN]!r}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise DataError(f"'{self.name}' says: {str(answer['error'])[:_SHOWN]}")
        return answer

    def close(self) -> None:
        """End the command."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait()


def load_function(name: str) -> ScoreFunction:
    """Import `module:function`; the current folder counts as a place for modules.

    Raises RecipeError if there is no such module or function, or if the module fails.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise RecipeError(f"'{name}' is no MODULE:FUNCTION such as my_eval:score")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # running a module may raise anything
        raise RecipeError(f"cannot import '{module_name}': {_in_a_line(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(f"module '{module_name}' has no function '{function_name}'")
    return function


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}"


def _num_parameters(function: ScoreFunction) -> int:
    """Return how many arguments a function must be given by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a compiled function without a signature
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
