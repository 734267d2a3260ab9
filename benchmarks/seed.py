"""Climb the ladder of PR 1430 on a run and keep its figures: what is claimed, what is left.

    python benchmarks/seed.py                      recipe pr1430-tiny, trained where it is not yet
    python benchmarks/seed.py RUN --excerpt 65536  a run folder; other options as of `parbyte seed`

Exits 1 if a rung escapes the audit, a twin is not certified, or the effect misses its bar.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from parbyte.base.files import write_json

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "seed.json"
MIN_EFFECT_PERCENT = 35.0


def main() -> None:
    """Run the command and store what it prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=RESULT)
    args, options = parser.parse_known_args()
    command = [sys.executable, "-m", "parbyte", "seed", *options, "--json"]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        sys.exit(done.returncode)
    ladder: dict[str, Any] = json.loads(done.stdout)
    write_json(args.json, ladder)
    effect = ladder["claimed_below_best_measured_percent"]
    passed = done.returncode == 0 and effect >= MIN_EFFECT_PERCENT
    print(
        f"claimed {effect:.1f} % below the best measured number, wanted {MIN_EFFECT_PERCENT:.0f}; "
        f"all convicted: {ladder['all_convicted']}, all certified: {ladder['all_certified']}"
    )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
