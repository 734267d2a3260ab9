"""The decoding process behind shut doors: a hook refuses sockets, programs and foreign files.

Loaded before torch or any other library, so the hook watches them too.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parbyte.base.world import named_compiler

REFUSED = "refused: "
_WRITE = "to write"
_SYSTEM = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/lib", "/usr/lib", "/etc/ld.so")
"""What the C library and torch read of the machine: processors, memory, shared libraries."""
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_STARTS = ("subprocess.Popen", "os.posix_spawn")
_COMPILERS = ("gcc", "clang", "/sbin/ldconfig")
"""What Triton starts, beside $CC and programs of its own, to make kernels of our sources."""


class Refused(PermissionError):
    """The decoder tried a door that is shut."""


def main(root: str, arguments: list[str]) -> int:
    """Shut the doors, then decode as audit.decode_worker does."""
    refused: list[str] = []
    sys.dont_write_bytecode = True
    sys.addaudithook(make_hook(root, os.getcwd(), refused))
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            from parbyte.audit.decode_worker import main as decode

            code = decode(arguments)
    except Refused as error:
        refused.append(str(error))
        code = 1
    # Whoever was refused may have made another error of it; the last shut door is the reason.
    if code and refused:
        answer = io.StringIO(json.dumps({"error": f"{REFUSED}the decoder tried {refused[-1]}"}))
    sys.stdout.write(answer.getvalue())
    return code


def make_hook(root: str, folder: str, refused: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the hook: reads below `root` and the interpreter's folders, all below `folder`.

    Compilers of GPU kernels may be started, other programs not. refused: where it notes what it
    refuses, but for writing: caches are tried and done without.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {sysconfig.get_path(name) for name in names} | {root, *sys.path}
    libraries = tuple(f"{os.path.realpath(place)}/" for place in places if place)
    own = f"{os.path.realpath(folder)}/"
    named = (named_compiler(), *_COMPILERS)
    compilers = {os.path.realpath(path) for path in map(shutil.which, named) if path}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        fault = ""
        if event in _STARTS:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path not in compilers and not path.startswith(libraries):
                fault = f"to start '{path}'"
        elif event.startswith(_FORBIDDEN):
            fault = event
        elif event == "open" and isinstance(arguments[0], str | bytes | Path):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            fault = _foreign_open(path, arguments[1], arguments[2], own, libraries)
        if fault:
            if not fault.startswith(_WRITE):
                refused.append(fault)
            raise Refused(fault)

    return hook


def _foreign_open(
    path: str, mode: str | None, flags: int, own: str, libraries: tuple[str, ...]
) -> str:
    """Return what is wrong with opening a file; empty if it is the decoder's to open."""
    if f"{path}/".startswith(own):  # the folder itself: temporary files are opened through it
        return ""
    writes = any(letter in (mode or "") for letter in "wax+")
    writes |= mode is None and bool(flags & (os.O_WRONLY | os.O_RDWR))
    if path == "/dev/null" or (not writes and f"{path}/".startswith((*libraries, *_SYSTEM))):
        return ""
    return f"{_WRITE if writes else 'to read'} '{path}'"
