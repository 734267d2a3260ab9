"""Audit every specimen of the claims room; write the matrix and the noise figures into its page.

python benchmarks/claims.py           audit, and rewrite docs/claims.md between its markers
python benchmarks/claims.py --noise   the noise figures alone, from results/null_test.json
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from parbyte.audit.run import BLACK_BOX, audit
from parbyte.audit.verdict import TITLES, Verdict
from parbyte.base.files import write_bytes
from parbyte.base.log import Console

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"
RESULT = ROOT / "benchmarks" / "results" / "null_test.json"
_MARKS = {"proof of invalidity": "**P**", "violation": "V", "note": "n"}
_LAWS = {"seed": "#1430", "once": "#1430, each token counted once", "full_c": "#1605"}


def main() -> None:
    """Rewrite the page; exit 1 if a specimen escapes or an honest form is accused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--noise", action="store_true", help="leave the matrix as it is")
    arguments = parser.parse_args()
    if RESULT.is_file():
        rewrite("noise", noise_table(json.loads(RESULT.read_text())))
    if not arguments.noise:
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
    rewrite("matrix", "\n".join([*rows, "", summary]))
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


def rewrite(name: str, text: str) -> None:
    """Replace what stands between a pair of the page's markers."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    write_bytes(PAGE, f"{before}{begin}\n{text}\n{end}{after}".encode())


if __name__ == "__main__":
    main()
