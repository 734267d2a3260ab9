"""Draw the README's picture from a finished run: its rates beside those of other compressors.

python benchmarks/picture.py runs/demo docs/demo.svg
"""

import argparse
from pathlib import Path

from parbyte.base.files import write_bytes
from parbyte.base.log import Console
from parbyte.report.baselines import MAX_TEXT_BYTES, load_or_measure
from parbyte.report.evidence import read_evidence, read_heldout
from parbyte.report.figures import draw_comparison
from parbyte.report.page import comparison_rows

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Draw one run's comparison into one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / "runs" / "demo")
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs" / "demo.svg")
    args = parser.parse_args()
    write_bytes(args.out, draw_run(args.run).encode())


def draw_run(run: Path) -> str:
    """Return the comparison of a finished run as a picture that stands alone."""
    evidence = read_evidence(run)
    heldout = read_heldout(run, MAX_TEXT_BYTES)
    stored = load_or_measure(run / "baselines.json", heldout, list, Console())
    svg = draw_comparison(comparison_rows(evidence.scorecard, stored))
    # Pages with a dark background would swallow the dark text of a transparent picture.
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


if __name__ == "__main__":
    main()
