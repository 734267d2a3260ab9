"""Audit every specimen of the claims room; write the matrix and what is stored into its page.

python benchmarks/claims.py            audit, and rewrite docs/claims.md between its markers
python benchmarks/claims.py --stored   only what results/null_test.json and seed*.json hold
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pages import rewrite
from parbyte.audit.run import BLACK_BOX, audit
from parbyte.audit.verdict import TITLES, Verdict
from parbyte.base.files import write_bytes
from parbyte.base.log import Console
from parbyte.report.figures import draw_sweep
from parbyte.seed.page import claimed, coded, draw, measured, on_paper, verdict_words

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = DOCS / "claims.md"
NOISE_RESULT = ROOT / "benchmarks" / "results" / "null_test.json"
LADDER_RESULTS = {
    "ladder": ROOT / "benchmarks" / "results" / "seed.json",
    "ladder_1gpu": ROOT / "benchmarks" / "results" / "seed_1gpu.json",
}
_MARKS = {"proof of invalidity": "**P**", "violation": "V", "note": "n"}
_LAWS = {"seed": "#1430", "once": "#1430, each token counted once", "full_c": "#1605"}


def main() -> None:
    """Rewrite the page; exit 1 if a specimen escapes or an honest form is accused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stored", action="store_true", help="leave the matrix as it is")
    arguments = parser.parse_args()
    if NOISE_RESULT.is_file():
        results = json.loads(NOISE_RESULT.read_text())
        rewrite(PAGE, "noise", noise_table(results))
        if "sweep" in results:
            write_bytes(DOCS / "sweep.svg", on_paper(draw_noise_sweep(results["sweep"])).encode())
    for mark, result in LADDER_RESULTS.items():
        if result.is_file():
            ladder = json.loads(result.read_text())
            rewrite(PAGE, mark, ladder_table(ladder, f"{mark}.svg"))
            write_bytes(DOCS / f"{mark}.svg", on_paper(draw(ladder)).encode())
    if not arguments.stored:
        audit_all()


def audit_all() -> None:
    """Audit everything and write the matrix."""
    specimens = load_specimens()
    torch.set_num_threads(1)  # the networks are too small for more
    wrong, honest = specimens.SPECIMENS, specimens.HONEST
    verdicts = {
        one.name: audit(
            one.make(),
            specimens.QUICK if one.caught_by else specimens.GENTLE,
            Console(quiet=True),
        )
        for one in [*wrong, *honest]
    }
    escaped = [one.name for one in wrong if not is_convicted(one, verdicts[one.name])]
    accused = [one.name for one in honest if verdicts[one.name].findings]
    summary = (
        f"{len(wrong) - len(escaped)} of {len(wrong)} claims are convicted by the check that is "
        f"named for them; {len(accused)} of {len(honest)} honest forms are accused."
    )
    checks = sorted(BLACK_BOX, key=list(TITLES).index)
    head = ["claim", "source", "breaks", *(f"{c} {TITLES[c]}" for c in checks)]
    rows = [f"| {' | '.join(head)} |", "| --- | --- | --- |" + " :-: |" * len(checks)]
    for one in [*wrong, *honest]:
        name = f"{one.name} ({one.caught_by})" if one.caught_by else f"*{one.name}*"
        source = one.source.partition(";")[2].strip() or "-"
        marks = [mark(verdicts[one.name], check) for check in checks]
        rows.append(f"| {' | '.join([name, source, one.breaks or '-', *marks])} |")
    rewrite(PAGE, "matrix", "\n".join([*rows, "", summary]))
    print(summary)
    if escaped or accused:
        sys.exit(f"escaped: {escaped}; accused: {accused}")


def load_specimens() -> ModuleType:
    """Import the specimens from where the tests keep them."""
    path = ROOT / "tests" / "claims" / "specimens.py"
    spec = importlib.util.spec_from_file_location("specimens", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["specimens"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def is_convicted(specimen: Any, verdict: Verdict) -> bool:
    """Say whether the check that is named for a specimen found it."""
    return any(one.check == specimen.caught_by and not one.passed for one in verdict.checks)


def mark(verdict: Verdict, check: str) -> str:
    """Return one cell: the gravest thing that a check found."""
    severities = [finding.severity for finding in verdict.findings if finding.check == check]
    if severities:
        return _MARKS[severities[0]]
    return "." if any(result.check == check for result in verdict.checks) else ""


def noise_table(results: dict[str, Any]) -> str:
    """Return the noise figures and the sweep as Markdown."""
    rows = [
        "| mixer | tokens of noise | claimed bits a token | at the end | bound | chance of it | "
        "sum over the vocabulary |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for part, name in _LAWS.items():
        if part not in results:
            continue
        told, total = results[part]["uniform"], results[part]["sum_over_vocabulary"]
        chance = "-" if told["log2_p"] is None else f"2^{told['log2_p']:,.0f}"
        rows.append(
            f"| {name} | {told['tokens']:,} | {told['claimed_bits_per_token']:.2f} | "
            f"{told['claimed_bits_per_token_at_the_end']:.2f} | "
            f"{told['ideal_bits_per_token']:.2f} | {chance} | {total:,.0f} |"
        )
    for part, unit in (("sweep", "bits_per_token"), ("text", "bpb")):
        if part not in results:
            continue
        swept = results[part]
        what = "noise" if part == "sweep" else "held-out text"
        rows += [
            "",
            f"| buckets, {swept['tokens']:,} tokens of {what} | claimed {unit.replace('_', ' ')} |",
            "| --- | --: |",
            *(f"| {name} | {value:.4f} |" for name, value in swept[f"claimed_{unit}"].items()),
            f"| the model alone | {swept[f'model_{unit}']:.4f} |",
        ]
    return "\n".join(rows)


def draw_noise_sweep(swept: dict[str, Any]) -> str:
    """Return the sweep over noise as SVG: claimed bits a token by the tables' size."""
    figures = {
        f"2^{int(name).bit_length() - 1}" if name.isdigit() else "exact": value
        for name, value in swept["claimed_bits_per_token"].items()
    }
    limit = swept["model_bits_per_token"]
    labels = ("buckets of a table", "bits a token (claimed)", f"entropy {limit:.0f} bits")
    return draw_sweep(figures, limit, labels)


def ladder_table(ladder: dict[str, Any], picture: str) -> str:
    """Return the ladder as Markdown, with its picture."""
    head = ["rung", "claimed", "the audit", "repaired", "measured", "coded", "the audit"]
    rows = [f"| {' | '.join(head)} |", "| --- | --: | --- | --- | --: | --: | --- |"]
    for rung in ladder["rungs"]:
        cells = [claimed(rung), verdict_words(rung), rung["repair"], measured(rung), coded(rung)]
        rows.append(f"| {' | '.join([rung['name'], *cells, rung['twin_verdict']])} |")
    text, machine = ladder["text"], ladder["machine"]
    summary = (
        f"The top rung is claimed {ladder['claimed_below_twin_percent']:.1f} % below what its "
        f"repaired twin measures, {ladder['claimed_below_best_measured_percent']:.1f} % below the "
        f"best measured number. Text: {text['bytes']:,} bytes, {text['tokens']:,} tokens; network: "
        f"{ladder['parameters']:,} parameters of `{ladder['run']}` after {ladder['train_steps']:,} "
        f"training steps; {ladder['seconds']:.0f} s on "
        f"{machine['threads']} of {machine['cores']} cores of {machine['cpu']}"
        f"{' and one ' + machine['gpu'] if machine['gpu'] else ''}."
    )
    return "\n".join([*rows, "", summary, "", f"![The ladder, claimed and coded]({picture})"])


if __name__ == "__main__":
    main()
