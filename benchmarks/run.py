"""Run the benchmarks that need no more than this machine, one after the other.

python benchmarks/run.py            all of them
python benchmarks/run.py overhead   the named ones
"""

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
BENCHMARKS = {
    "demo": "the demo: rates, sizes, seconds, memory",
    "coding": "tokens/s of coding in both directions; its bits against the measured ones",
    "portable": "the portable engine against the torch engine: speed, bits, start-up",
    "overhead": "train() against a bare loop",
    "pack": "every coder of weights against the entropy",
    "large": "GPTQ of 27 million weights, decoding of 36 million",
    "compressors": "archives against xz, zstd, brotli, bzip2 and PPMd on the demo's held-out text",
    "memory": "peak memory of compressing 400 MB from a pipe",
    "audit": "wrong twins and honest scorers under every check: docs/audit-matrix.md",
    "claims": "every specimen of the claims room under every check: docs/claims.md",
}
"""Script -> what it measures."""
ON_REQUEST = {
    "quantize": "ways to quantise against each other; needs a finished run folder",
    "fit": "caps of several sizes filled by pack.fit; needs a finished run folder",
    "qat": "packing after training on the grid and after exact training; minutes a row",
    "eval_time": "every stage of a stack on the development text; needs a run folder",
    "ngram": "the exact n-gram stage over 10 million tokens; minutes",
    "gpu": "training on one GPU; needs --data, see its --help",
    "golf": "ten minutes of a golf recipe on one GPU; needs its run folder",
    "prove": "coding at the contest's size on one GPU; needs --data and --work",
    "scoring": "measured sliding evaluation on one GPU; needs --data",
    "exchange": "bitstreams between two machines; `make` here, `check` there",
    "train": "training on one GPU, where time goes, beside other scripts; needs --data",
    "curve": "losses on a GPU against the CPU's; needs --data",
    "ranks": "training on 1, 2, 4 GPUs of one host; needs --data",
    "seed": "the ladder of PR 1430; trains pr1430-tiny first, or takes a run folder",
    "null_test": "hashed n-gram mixers on noise; minutes, and gigabytes of tables",
    "prepare": "a corpus to shards; needs a large --corpus to mean much",
}


def main() -> None:
    """Run the named benchmarks, or all; exit 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}': choose from {', '.join(BENCHMARKS)}")
    failed = [name for name in names if not run(name)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run one benchmark in a process of its own; say whether it came through."""
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    return subprocess.run([sys.executable, FOLDER / f"{name}.py"], check=False).returncode == 0


if __name__ == "__main__":
    main()
