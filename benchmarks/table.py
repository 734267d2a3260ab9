"""Write the README's table of numbers from the stored results.

python benchmarks/table.py           rewrite the block between the two markers
python benchmarks/table.py --check   exit 1 if the block is not what the results say
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import replace_block

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = "numbers"
"""Name of the README's block."""


@dataclass(frozen=True)
class Line:
    """One line of the table: which stored figure it shows, how, and what was asked of it."""

    what: str
    file: str
    key: str
    """Dotted path inside the file's JSON."""
    show: Callable[[Any], str]
    bar: str
    command: str


def _bpb(kind: str) -> Callable[[float], str]:
    return lambda value: f"{value:.4f} bpb ({kind})"


def _count(unit: str) -> Callable[[float], str]:
    return lambda value: f"{value:,.0f} {unit}"


def _percent_of(value: float) -> str:
    return f"{value:.1%}"


def _mib(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


_DEMO, _OVERHEAD = "`make demo`", "`python benchmarks/overhead.py`"
_CODING = "`python benchmarks/coding.py`"
_PREPARE = "`python benchmarks/prepare.py --corpus FOLDER`"
_GPU, _NGRAM = "`python benchmarks/gpu.py`", "`python benchmarks/ngram.py`"
_TRAIN, _GOLF = "`python benchmarks/train.py`", "`python benchmarks/golf.py`"
_PROVE, _SCORING = "`python benchmarks/prove.py`", "`python benchmarks/scoring.py`"
LINES = (
    Line("demo, held-out text", "demo", "coded_bpb", _bpb("coded"), "<= 1.50", _DEMO),
    Line("the same, teacher-forced", "demo", "measured_bpb", _bpb("measured"), "", _DEMO),
    Line(
        "coded above measured",
        "demo",
        "gap_percent",
        lambda value: f"{value:+.3f} %",
        "-0.01 to 0.2 %",
        _DEMO,
    ),
    Line("xz -9e on the same bytes", "demo", "compressors.xz -9e", _bpb("coded"), "", _DEMO),
    Line("artifact", "demo", "artifact_bytes", _count("bytes"), "<= 400,000", _DEMO),
    Line("all stages but the report", "demo", "total_seconds", _count("s"), "", _DEMO),
    Line("peak memory", "demo", "peak_memory_bytes", _mib, "<= 3,072 MiB", _DEMO),
    Line(
        "its encoding, one lane", "demo", "encode_tokens_per_second", _count("tokens/s"), "", _DEMO
    ),
    Line("its decoding", "demo", "decode_tokens_per_second", _count("tokens/s"), "", _DEMO),
    Line(
        "encoding, network alone, 8 lanes",
        "coding",
        "encode_tokens_per_s",
        _count("tokens/s"),
        ">= 2,500",
        _CODING,
    ),
    Line("decoding it", "coding", "decode_tokens_per_s", _count("tokens/s"), ">= 2,500", _CODING),
    Line(
        "decoding time, of encoding's",
        "coding",
        "decode_over_encode_seconds",
        _percent_of,
        "85 to 115 %",
        _CODING,
    ),
    Line(
        "training speed, of a bare loop's", "overhead", "ratio", _percent_of, ">= 95 %", _OVERHEAD
    ),
    Line(
        "n-gram counts of order 22, one core",
        "ngram",
        "table.tokens_per_s",
        _count("updates and queries/s"),
        ">= 200,000",
        _NGRAM,
    ),
    Line(
        "their stage, a whole row a token",
        "ngram",
        "stage.tokens_per_s",
        _count("tokens/s"),
        "",
        _NGRAM,
    ),
    Line("preparing a large corpus", "prepare", "bytes", _count("bytes"), "", _PREPARE),
    Line("its speed", "prepare", "tokens_per_second", _count("tokens/s"), "", _PREPARE),
    Line("its peak memory", "prepare", "peak_rss_bytes", _mib, "<= 1,024 MiB", _PREPARE),
    Line(
        "golf-baseline on one GPU",
        "train",
        "golf-baseline.plain.tokens_per_second",
        _count("tokens/s"),
        ">= 1,750,000",
        _TRAIN,
    ),
    Line(
        "the contest's own script of that recipe there",
        "train",
        "peer.tokens_per_second",
        _count("tokens/s"),
        "",
        "`python benchmarks/train.py --peer`",
    ),
    Line(
        "pr1430-base on one GPU",
        "gpu",
        "pr1430-base.tokens_per_second",
        _count("tokens/s"),
        ">= 1,160,000",
        _GPU,
    ),
    Line(
        "the record's shape (36 M parameters) on one GPU",
        "train",
        "golf-record.plain.tokens_per_second",
        _count("tokens/s"),
        ">= 1,250,000",
        _TRAIN,
    ),
    Line(
        "the same, its loop on",
        "train",
        "golf-record.looping.tokens_per_second",
        _count("tokens/s"),
        ">= 850,000",
        _TRAIN,
    ),
    Line(
        "27 M parameters, ten minutes on Wikipedia, FineWeb held out",
        "golf",
        "coded_bpb",
        _bpb("coded"),
        "",
        _GOLF,
    ),
    Line("its artifact", "golf", "artifact_bytes", _count("bytes"), "<= 16,000,000", _GOLF),
    Line(
        "encoding with 27 M parameters on one GPU",
        "prove",
        "round_trip.encode.tokens_per_s",
        _count("tokens/s"),
        ">= 60,000",
        _PROVE,
    ),
    Line(
        "decoding it",
        "prove",
        "round_trip.decode.tokens_per_s",
        _count("tokens/s"),
        ">= 60,000",
        _PROVE,
    ),
    Line(
        "coded above measured there",
        "prove",
        "round_trip.coded_over_measured",
        lambda value: f"{value:+.3%}",
        "<= 0.3 %",
        _PROVE,
    ),
    Line(
        "scoring at stride 64 on one GPU",
        "scoring",
        "stride_64.scored_tokens_per_s",
        _count("tokens/s"),
        ">= 150,000",
        _SCORING,
    ),
    Line(
        "scoring at stride 1,024",
        "scoring",
        "stride_1024.scored_tokens_per_s",
        _count("tokens/s"),
        ">= 1,200,000",
        _SCORING,
    ),
)


def main() -> None:
    """Rewrite or check the README's block."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = replace_block(old, BLOCK, render_table(read_results(RESULTS)))
    if args.check and new != old:
        sys.exit("README.md: the table is not what benchmarks/results say: run `make table`")
    if new != old:
        readme.write_text(new, encoding="utf-8")


def read_results(folder: Path) -> dict[str, Any]:
    """Return every stored result: file name without suffix -> its JSON."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render_table(results: dict[str, Any]) -> str:
    """Return the table as Markdown; a line whose figure is not stored is left out."""
    found = [(line, look_up(results.get(line.file), line.key)) for line in LINES]
    rows = [
        f"| {line.what} | {line.show(value)} | {line.bar} | {line.command} |"
        for line, value in found
        if value is not None
    ]
    if not rows:
        return "No results are stored yet: `make bench` writes them to `benchmarks/results/`."
    head = ["| what | number | wanted | command |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, "", *_machines(results)])


def look_up(result: Any, key: str) -> Any:
    """Return the figure at a dotted key, or None if there is none."""
    for part in key.split("."):
        result = result.get(part) if isinstance(result, dict) else None
    return result


def _machines(results: dict[str, Any]) -> list[str]:
    """Return on which machine the figures of each file were taken."""
    files: dict[str, list[str]] = {}
    for line in LINES:
        result = results.get(line.file) or {}
        entry = look_up(result, line.key.partition(".")[0])
        names = files.setdefault(_place(result) or _place(entry), [])
        if line.file not in names:
            names.append(line.file)
    files.pop("", None)
    parts = [f"{', '.join(names)}: {where}" for where, names in files.items()]
    return [f"Measured on: {'; '.join(parts)}."]


def _place(result: Any) -> str:
    """Return where a file's figures, or one entry of them, were taken; empty if it does not say."""
    if not isinstance(result, dict):
        return ""
    machine = result.get("hardware") or result.get("machine") or {}
    cpu = f"{machine['cores']} cores of {machine['cpu']}" if "cores" in machine else ""
    return result.get("gpu") or cpu


if __name__ == "__main__":
    main()
