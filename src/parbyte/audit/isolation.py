"""T12: the decoder with its doors shut: no network, no file but artifact and bitstream.

Network: a namespace of its own, in which there is none, where the kernel lets `unshare` make one;
else only the audit hook. Files: the hook (audit.isolated_worker) refuses every path outside the
interpreter's own folders, the package and the proof's folder. The hook sees what Python opens, not
what a native library opens by itself; the verdict says which walls stood.
"""

import functools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from parbyte.audit.isolated_worker import REFUSED

WORKER = (
    "import sys; root, *rest = sys.argv[1:]; sys.path.insert(0, root); "
    "from parbyte.audit.isolated_worker import main; sys.exit(main(root, rest))"
)
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net")


@dataclass(frozen=True, kw_only=True)
class Walls:
    """What stands between the decoder and the rest of the machine."""

    launcher: Sequence[str]
    network: str
    files: str = "audit hook"


@functools.cache
def walls() -> Walls:
    """Return the strongest isolation that this machine permits."""
    try:
        done = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False)
    except OSError:
        return Walls(launcher=(), network="audit hook")
    if done.returncode:
        return Walls(launcher=(), network="audit hook")
    return Walls(launcher=_UNSHARE, network="namespace without network, and audit hook")


def is_refusal(reason: str) -> bool:
    """Say whether a decoder failed because it tried a door that was shut."""
    return reason.startswith(REFUSED)
