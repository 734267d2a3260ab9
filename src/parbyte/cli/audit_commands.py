"""The command `audit`: its options, the verdict's file in a run folder, and what is printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parbyte.base.errors import RecipeError
from parbyte.base.files import write_json
from parbyte.base.log import Console, console_for
from parbyte.cli.entry import DONE, NOT_PROVEN, crashes_kept_in
from parbyte.cli.options import JsonOption, QuietOption, artifact_path, refuse_options
from parbyte.cli.output import Row, emit
from parbyte.codec.config import CodecConfig
from parbyte.pipeline import report_again
from parbyte.recipe import is_run_folder, load_recipe
from parbyte.run_folder import VERDICT_FILE, Run

if TYPE_CHECKING:
    from parbyte.audit.verdict import Verdict

_DEEP_STEPS = 50


def audit(
    context: typer.Context,
    subject: Annotated[
        str | None, typer.Argument(metavar="RUN|MODEL", help="A run folder or an artifact.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to score; of a run: its held-out.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Build a RUN's artifact anew beside other held-out text.")
    ] = False,
    deep_steps: Annotated[
        int, typer.Option(min=0, help="Training steps of each such build; 0: the run's own.")
    ] = _DEEP_STEPS,
    scorer: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="A Python function that scores.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar="CMD", help="A command that speaks docs/audit.md.")
    ] = None,
    vocab: Annotated[int, typer.Option(min=0, max=65536, help="Its vocabulary's size.")] = 0,
    bos: Annotated[int, typer.Option(min=-1, help="Its BOS; -1: it has none.")] = -1,
    chunk: Annotated[int, typer.Option(min=0, help="Its positions between two updates.")] = 0,
    noise: Annotated[int, typer.Option(min=16, help="Tokens of each noise.")] = 20_000,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Try to show that a score is no codelength; exit 1 unless it is certified."""
    from parbyte.audit.subject import AuditConfig
    from parbyte.cli.audit_subjects import Foreign, audit_foreign, audit_model, audit_run

    if sum(given is not None for given in (subject, scorer, command)) != 1:
        raise RecipeError("give one of RUN|MODEL, --scorer or --command: it is what is audited")
    is_run = subject is not None and text is None and is_run_folder(subject)
    if deep and not is_run:
        raise RecipeError("--deep builds a run's artifact anew: give a RUN, and no --text")
    if subject is not None:
        refuse_options(context, ("vocab", "bos", "chunk"), "belongs to --scorer or --command")
    if not deep:
        refuse_options(context, ("deep_steps",), "belongs to --deep: give both, or neither")
    config, console = AuditConfig(noise_tokens=noise), console_for(quiet=quiet)
    if subject is None:
        if text is not None:
            raise RecipeError("--text needs a tokenizer: give it with a RUN or a MODEL")
        foreign = Foreign(function=scorer, command=command, vocab=vocab, bos=bos, chunk=chunk)
        verdict = audit_foreign(foreign, config, console)
    elif is_run:
        with crashes_kept_in(Path(subject)):
            verdict = audit_run(Path(subject), deep_steps if deep else None, config, console)
    else:
        codec = load_recipe(subject).codec if is_run_folder(subject) else CodecConfig()
        verdict = audit_model(artifact_path(Path(subject)), text, codec, config, console)
    emit(verdict.to_json(), verdict_rows(verdict), as_json=as_json)
    if subject is not None and is_run:
        _keep(verdict, Path(subject), console)
    return DONE if verdict.verdict == "certified" else NOT_PROVEN


def verdict_rows(verdict: "Verdict") -> list[Row]:
    """Return a verdict as lines for a person: the word, the findings, the checks, the gaps."""
    from parbyte.audit.verdict import TITLES

    rows: list[Row] = [("verdict", verdict.verdict, verdict.subject)]
    for finding in verdict.findings:
        rows.append((f"{finding.check} {finding.severity}", finding.evidence, finding.rule))
    for check in verdict.checks:
        word = "passed" if check.passed else "FAILED"
        rows.append((f"{check.check} {TITLES[check.check]}", word, f"{check.seconds:.1f} s"))
    rows += [(f"{gap.check} not tested", gap.reason, "") for gap in verdict.not_tested]
    return rows


def _keep(verdict: "Verdict", folder: Path, console: Console) -> None:
    """Leave a verdict in its run's folder and in the run's report, if it has one."""
    with crashes_kept_in(folder):
        write_json(folder / VERDICT_FILE, verdict.to_json())
        report_again(Run(folder, load_recipe(folder), console))
