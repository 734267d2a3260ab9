"""Store what ten minutes of a golf recipe on one GPU come to, from its run folder.

    parbyte run pr1430-1gpu --out runs/golf --set text.corpus=CORPUS --set text.heldout=HELDOUT \
        --set text.tokenizer=sentencepiece --set text.tokenizer_file= --set codec.lanes=64
    python benchmarks/golf.py runs/golf --corpus WORDS --heldout WORDS
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from parbyte.base.files import read_json, write_json

RESULT = Path(__file__).parent / "results" / "golf.json"
KEPT = (
    "recipe",
    "track",
    "certified",
    "within_track",
    "coded_bpb",
    "measured_bpb",
    "text_bytes",
    "text_tokens",
    "bitstream_bytes",
    "artifact_bytes",
    "artifact_parts",
    "cap_bytes",
    "vocab_size",
    "lanes",
    "parameters",
    "steps",
    "tokens",
    "tokens_per_second",
    "train_seconds",
    "dev_bpb",
    "measured_tokens_per_second",
    "encode_tokens_per_second",
    "decode_tokens_per_second",
    "stage_seconds",
    "checks",
    "hardware",
    "versions",
)


def main() -> None:
    """Read the scorecard, keep its figures and print the line that counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--corpus", required=True, help="what the corpus is, in words")
    parser.add_argument("--heldout", required=True, help="what the held-out text is, in words")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    figures = golf_figures(args.run) | {"corpus": args.corpus, "heldout": args.heldout}
    write_json(args.json, figures)
    print(
        f"{figures['recipe']}: {figures['coded_bpb']:.4f} bpb (coded), "
        f"{figures['artifact_bytes']:,} bytes, {figures['train_seconds']:.1f} s of training"
    )


def golf_figures(run: Path) -> dict[str, Any]:
    """Return what is kept of a run: its scorecard, its training, its training text."""
    scorecard, train = read_json(run / "scorecard.json"), read_json(run / "train.json")
    stages = read_json(run / "stages.json")["stages"]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = {name: scorecard[name] for name in KEPT}
    # It names the corpus by its path on that machine.
    kept["checks"] = {k: v for k, v in kept["checks"].items() if k != "track_corpus"}
    return {
        **kept,
        "gpu": train["hardware"].get("device", ""),
        "qat_from": train["qat_from"],
        "exact_tokens_per_second": _pace(log, is_rounded=False),
        "rounded_tokens_per_second": _pace(log, is_rounded=True),
        "training_peak_bytes": train["peak_memory_bytes"],
        "calibration_seconds": stages["pack"]["figures"]["learning_seconds"],
        "train_text_bytes": stages["data"]["figures"]["train_bytes"],
        "train_text_tokens": stages["data"]["figures"]["train_tokens"],
    }


def _pace(log: list[dict[str, Any]], *, is_rounded: bool) -> float | None:
    """Return the usual tokens/s of the lines of a log without or with rounded weights."""
    paces = [line["tokens_per_s"] for line in log if line["qat"] is is_rounded]
    return median(paces) if paces else None


if __name__ == "__main__":
    main()
