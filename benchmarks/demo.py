"""Take the demo's figures from its run folder; the demo is run first where it is not finished.

python benchmarks/demo.py
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from parbyte.base.files import read_json, write_json
from parbyte.base.units import coded_bits_per_byte

ROOT = Path(__file__).parents[1]
RUN = ROOT / "runs" / "demo"
RESULT = ROOT / "benchmarks" / "results" / "demo.json"
KEPT = (
    "certified",
    "coded_bpb",
    "measured_bpb",
    "text_bytes",
    "bitstream_bytes",
    "artifact_bytes",
    "cap_bytes",
    "train_seconds",
    "tokens_per_second",
    "encode_tokens_per_second",
    "decode_tokens_per_second",
    "stage_seconds",
    "peak_memory_bytes",
    "hardware",
    "versions",
)


def main() -> None:
    """Finish the demo if need be and store its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    command = [sys.executable, "-m", "parbyte", "run", "tiny", "--out", str(RUN.relative_to(ROOT))]
    subprocess.run(command, cwd=ROOT, check=True)
    figures = demo_figures(read_json(RUN / "scorecard.json"), read_json(RUN / "baselines.json"))
    write_json(args.json, figures)


def demo_figures(scorecard: dict[str, Any], baselines: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a scorecard, and the rates of the other compressors."""
    gap = 100.0 * (scorecard["coded_bpb"] / scorecard["measured_bpb"] - 1.0)
    others = {
        result["name"]: coded_bits_per_byte(result["compressed_bytes"], result["text_bytes"])
        for result in baselines["results"]
    }
    kept = {name: scorecard[name] for name in KEPT}
    total_s = sum(scorecard["stage_seconds"].values())
    return {**kept, "gap_percent": gap, "total_seconds": total_s, "compressors": others}


if __name__ == "__main__":
    main()
