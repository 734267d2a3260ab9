"""The one door to numba: strict IEEE arithmetic, machine code kept on disk where that is possible.

No fast-math and no contraction: every multiplication and every addition rounds once, in the order
that the source states. LLVM may then vectorise only across results, never within a sum, so the bits
do not depend on the width of the vectors.
"""

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parbyte.base.errors import ResourceError

try:
    import numba
    from numba.core import config as _config
except ImportError:
    raise ResourceError(
        "engine 'portable' needs numba, which is not installed: pip install numba"
    ) from None

# numba fills it at run time, which type checkers cannot see.
config: Any = _config

_HERE = Path(__file__).parent
_USER_CACHE = Path("~/.cache/parbyte")


def compiled(
    *, is_entry: bool = False, is_inner: bool = False, is_lean: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that compiles a kernel at its first call.

    is_entry: Python calls it, not only other kernels. Its code, with all that it calls, is kept
    beside the package, else in the user's cache folder, else nowhere; what was kept where this
    process may not write is used from a copy.
    is_inner: Python never calls it: no door is compiled, which for a whole network takes long.
    is_lean: it makes no arrays, so that references to those it is given need no counting, which
    costs more than a small kernel does (numba issue 2350).
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = _cache_folder() if is_entry else None
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder or before)
        try:
            options: dict[str, Any] = {
                "cache": folder is not None,
                "fastmath": False,
                "nogil": True,
                "error_model": "numpy",
                "no_cpython_wrapper": is_inner,
                "no_cfunc_wrapper": is_inner,
                "_nrt": not is_lean,
            }
            return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before

    return decorate


def _cache_folder() -> Path | None:
    # numba looks at the file of the cached kernel only, not at the files of those it calls: the
    # folder's name holds all of them, so that no kernel outlives a change to another.
    sources = sorted(_HERE.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    chosen = config.CACHE_DIR
    roots = [Path(chosen)] if chosen else [_HERE / "__pycache__", _USER_CACHE.expanduser()]
    folders = [root / digest for root in roots]
    own = next((folder for folder in folders if _is_writable(folder)), None)
    copies = (_copy_of(folder) for folder in folders if folder.is_dir())
    return own or next((Path(copy.name) for copy in copies if copy), None)


@functools.cache
def _copy_of(folder: Path) -> "tempfile.TemporaryDirectory[str] | None":
    """Return a copy that lasts as long as this process, None if the folder cannot be read."""
    try:
        copy = tempfile.TemporaryDirectory(prefix="parbyte-code-", ignore_cleanup_errors=True)
        shutil.copytree(folder, copy.name, dirs_exist_ok=True)
    except OSError:
        return None
    return copy


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
