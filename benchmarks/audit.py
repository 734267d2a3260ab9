"""Audit every wrong twin and every honest scorer; write the matrix of who is caught by what.

python benchmarks/audit.py [docs/audit-matrix.md]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from parbyte.audit.run import BLACK_BOX, audit
from parbyte.audit.verdict import TITLES, Verdict
from parbyte.base.files import write_bytes
from parbyte.base.log import Console

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.audit import twins  # noqa: E402

_MARKS = {"proof of invalidity": "**P**", "violation": "V", "note": "n"}
_HEAD = """# Who is caught by what

Written by `benchmarks/audit.py`: every wrong twin and every honest scorer of `tests/audit/twins.py`
under every check that needs no decoding. **P** proof of invalidity, V violation, n note, `.`
passed, empty: not tested. In brackets stands the check that must catch the twin. What each check
proves: [audit.md](audit.md).
"""


def main() -> None:
    """Write the matrix; exit 1 if a twin escapes or an honest scorer is accused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs" / "audit-matrix.md")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # the models are too small for more
    verdicts = {
        twin.name: audit(twin.make(), twins.QUICK, Console(quiet=True))
        for twin in [*twins.WRONG, *twins.HONEST]
    }
    write_bytes(out, render(twins.WRONG, twins.HONEST, verdicts).encode())
    caught = sum(is_caught(twin, verdicts[twin.name]) for twin in twins.WRONG)
    accused = [twin.name for twin in twins.HONEST if verdicts[twin.name].findings]
    print(f"{caught} of {len(twins.WRONG)} twins caught, {len(accused)} honest ones accused: {out}")
    if caught < len(twins.WRONG) or accused:
        sys.exit(1)


def is_caught(twin: Any, verdict: Verdict) -> bool:
    """Say whether the check that names a twin found it."""
    return any(result.check == twin.caught_by and not result.passed for result in verdict.checks)


def render(wrong: Sequence[Any], honest: Sequence[Any], verdicts: dict[str, Verdict]) -> str:
    """Return the page."""
    checks = sorted(BLACK_BOX, key=list(TITLES).index)
    titles = [f"{check} {TITLES[check]}" for check in checks]
    rows = [f"| scorer | {' | '.join(titles)} |", "| --- |" + " :-: |" * len(checks)]
    for twin in [*wrong, *honest]:
        label = f"{twin.name} ({twin.caught_by})" if twin.caught_by else f"*{twin.name}*"
        marks = [mark(verdicts[twin.name], check) for check in checks]
        rows.append(f"| {label} | {' | '.join(marks)} |")
    caught = sum(is_caught(twin, verdicts[twin.name]) for twin in wrong)
    accused = sum(bool(verdicts[twin.name].findings) for twin in honest)
    summary = (
        f"{caught} of {len(wrong)} wrong twins are caught by the check that names them; "
        f"{accused} of {len(honest)} honest scorers (in italics) are accused."
    )
    return "\n".join([_HEAD, *rows, "", summary, ""])


def mark(verdict: Verdict, check: str) -> str:
    """Return one cell: the gravest thing that a check found."""
    severities = [finding.severity for finding in verdict.findings if finding.check == check]
    if severities:
        return _MARKS[severities[0]]
    return "." if any(result.check == check for result in verdict.checks) else ""


if __name__ == "__main__":
    main()
