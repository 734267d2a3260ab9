"""From a command line to an exit code; the one place where every exception ends.

0 done, 1 not proven, 2 the user's input is wrong, 3 our bug (traceback kept), 130 interrupted.
"""

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from parbyte.base.errors import ParbyteError, ResourceError
from parbyte.base.files import resource_error
from parbyte.run_folder import CRASH_FILE

DONE, NOT_PROVEN, WRONG_INPUT, OUR_BUG, INTERRUPTED = 0, 1, 2, 3, 130
_PIPE_CLOSED = 141
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
# typer exports its usage errors only through this subclass, whatever click it is built on.
_ClickError = typer.BadParameter.__mro__[2]


class Crash(Exception):
    """An unexpected error, with the folder that should keep its traceback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


@contextmanager
def crashes_kept_in(folder: Path) -> Iterator[None]:
    """Let an unexpected error leave its traceback in `folder`, until a command goes well there."""
    try:
        yield
        (folder / CRASH_FILE).unlink(missing_ok=True)
    except ParbyteError:
        raise
    except Exception as error:
        raise Crash(folder) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from parbyte.cli.app import app

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(arguments, prog_name="parbyte", standalone_mode=False)
        # typer turns Ctrl-C into an exit code of its own, or into Abort, depending on its version.
        return _interrupted() if code == INTERRUPTED else code or DONE
    except ParbyteError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except SystemExit:
        # typer's answer to a reader that has gone; 1 would mean "not proven".
        return _PIPE_CLOSED
    except Exception as error:
        return _end(error)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(error: Exception) -> int:
    """Tell what the machine or the user can cause from what only our bug can."""
    folder = error.folder if isinstance(error, Crash) else Path(tempfile.gettempdir())
    cause: BaseException = error.__cause__ or error if isinstance(error, Crash) else error
    if isinstance(cause, _ClickError):
        return _complain(_usage_line(cause), WRONG_INPUT)
    if isinstance(cause, BrokenPipeError):
        # Whoever read our results has gone; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    if isinstance(cause, OSError) and cause.errno in _REFUSALS:
        line = resource_error(cause, Path(str(cause.filename or "the output")))
        return _complain(str(line), WRONG_INPUT)
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        line = ResourceError("out of memory: lower train.micro_batch_tokens or codec.lanes")
        return _complain(str(line), WRONG_INPUT)
    return _keep_traceback(cause, folder)


def _usage_line(error: BaseException) -> str:
    """Return a usage error as one line that names the command's help."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "parbyte"
    text = str(getattr(error, "format_message", lambda: error)()).rstrip(".")
    return f"{' '.join(text.split()) or 'a command is missing'}; see `{command} --help`"


def _keep_traceback(error: BaseException, folder: Path) -> int:
    lines = "".join(traceback.format_exception(error))
    for place in (folder, Path(tempfile.gettempdir())):
        path = place / CRASH_FILE
        try:
            path.write_text(lines)
        except OSError:
            continue
        kind = type(error).__name__
        return _complain(f"a bug of ours ({kind}); its traceback is in '{path}'", OUR_BUG)
    return _complain(f"a bug of ours: {lines}", OUR_BUG)


def _complain(line: str, code: int) -> int:
    print(f"parbyte: {line}", file=sys.stderr, flush=True)
    return code


def _interrupted() -> int:
    return _complain("interrupted; run the same command again to go on", INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat a polite kill as Ctrl-C: files whole, children ended, the run can go on."""
    raise KeyboardInterrupt
