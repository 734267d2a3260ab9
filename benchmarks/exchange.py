"""Show that another machine gives the same bitstreams, byte for byte, and reads this one's.

    python benchmarks/exchange.py make FOLDER MODEL TEXT    here: bitstreams and digests
    python benchmarks/exchange.py check FOLDER              there: codes again, compares, decodes

`make` codes the text with the portable engine, each number of threads in a process of its own, and
once more with machine code for any processor. `check` does the same on its machine, compares all
with the folder's bytes and restores the text from them. It needs only the packages that coding
needs, and finds parbyte on PYTHONPATH; the folder may be read-only.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

THREADS = (1, 2, 7)
LANES, FRAME_BYTES = 8, 1 << 15
MODEL, TEXT, DIGESTS, STREAMS = "model.parbyte", "text", "digests.json", "streams"
CODE = """
import sys
from pathlib import Path
from parbyte.base.log import Console
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.config import CodecConfig
model, text, stream, back = map(Path, sys.argv[1:5])
threads, lanes, frame_bytes = map(int, sys.argv[5:])
config = CodecConfig(lanes=lanes, threads=threads, frame_bytes=frame_bytes)
compress_file(model, text, stream, config, Console(quiet=True))
decompress_file(model, stream, back, Console(quiet=True))
assert back.read_bytes() == text.read_bytes(), "another text came back"
"""
DECODE = """
import sys
from pathlib import Path
import torch
from parbyte.base.log import Console
from parbyte.codec.compress import decompress_file
torch.set_num_threads(int(sys.argv[4]))
decompress_file(*map(Path, sys.argv[1:4]), Console(quiet=True))
"""


def main() -> None:
    """Make or check; print one JSON object; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make", help="write bitstreams and digests into a new folder")
    maker.add_argument("folder", type=Path)
    maker.add_argument("model", type=Path)
    maker.add_argument("text", type=Path)
    checker = verbs.add_parser("check", help="code again and compare")
    checker.add_argument("folder", type=Path)
    checker.add_argument("--json", type=Path, help="where to keep the answer")
    given = parser.parse_args()
    if given.verb == "make":
        answer = make(given.folder, given.model, given.text)
    else:
        answer = check(given.folder)
    print(json.dumps(answer, indent=2))
    if given.verb == "check" and given.json:
        given.json.write_text(json.dumps(answer, indent=2) + "\n")
    if not answer["equal"]:
        sys.exit(1)


def make(folder: Path, model: Path, text: Path) -> dict[str, Any]:
    """Write model, text, every way's bitstream and its digest."""
    (folder / STREAMS).mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model.read_bytes())
    (folder / TEXT).write_bytes(text.read_bytes())
    made = encode_all(folder, folder / STREAMS)
    digests = {"made_on": describe(), "sha256": made}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n")
    return {"equal": len(set(made.values())) == 1, **digests}


def check(folder: Path) -> dict[str, Any]:
    """Code the folder's text on this machine; compare bytes; decode the folder's bitstreams."""
    known = json.loads((folder / DIGESTS).read_text())
    with tempfile.TemporaryDirectory(prefix="parbyte-exchange-") as name:
        made = encode_all(folder, Path(name))
        restored = {
            f"{path.stem}, {threads} threads": decode(folder, path, Path(name) / "back", threads)
            for path in sorted((folder / STREAMS).iterdir())
            for threads in THREADS
        }
    same = {way: sha256 == known["sha256"][way] for way, sha256 in made.items()}
    return {
        "equal": all(same.values()) and all(restored.values()),
        "encoding_gives_the_same_bytes": same,
        "decoding_restores_the_text": restored,
        "made_on": known["made_on"],
        "checked_on": describe(),
    }


def encode_all(folder: Path, out: Path) -> dict[str, str]:
    """Code the folder's text in every way; return each bitstream's SHA-256."""
    ways = {f"{threads}-threads": (threads, {}) for threads in THREADS}
    ways["generic-cpu"] = (1, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""})
    made = {}
    with tempfile.TemporaryDirectory(prefix="parbyte-exchange-") as name:
        for way, (threads, changes) in ways.items():
            stream = out / f"{way}.pby"
            # Machine code of another processor must neither be found nor left behind.
            cache = Path(name) / ("generic" if changes else "native")
            environment = {**os.environ, **changes, "NUMBA_CACHE_DIR": str(cache)}
            numbers = [str(threads), str(LANES), str(FRAME_BYTES)]
            paths = [folder / MODEL, folder / TEXT, stream, Path(name) / "back"]
            run(CODE, [*map(str, paths), *numbers], environment)
            made[way] = hashlib.sha256(stream.read_bytes()).hexdigest()
    return made


def decode(folder: Path, stream: Path, back: Path, threads: int) -> bool:
    """Say whether a bitstream of the folder gives its text here."""
    words = [str(folder / MODEL), str(stream), str(back), str(threads)]
    run(DECODE, words, dict(os.environ))
    return back.read_bytes() == (folder / TEXT).read_bytes()


def run(code: str, words: list[str], environment: dict[str, str]) -> None:
    """Run code in a fresh process; its messages are shown if it fails."""
    subprocess.run([sys.executable, "-c", code, *words], env=environment, check=True)


def describe() -> dict[str, Any]:
    """Return what may differ from one machine to the next."""
    from parbyte.base.machine import describe_machine, describe_versions

    flags = Path("/proc/cpuinfo").read_text().split()
    vectors = [name for name in ("avx2", "avx512f", "fma", "asimd", "sve") if name in flags]
    return {
        "node": platform.machine(),
        "vectors": vectors,
        **describe_machine(),
        "versions": describe_versions(),
    }


if __name__ == "__main__":
    main()
