"""What the command `audit` puts before the checks: a run, an artifact, somebody else's scorer."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from parbyte.audit.artifact_case import Case, artifact_subject, judge
from parbyte.audit.run import audit as run_audit
from parbyte.audit.scorer import Scorer
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import NotTested, Verdict
from parbyte.base.errors import DataError, RecipeError
from parbyte.base.files import read_json
from parbyte.base.log import Console
from parbyte.cli.options import artifact_path, input_file
from parbyte.codec.config import CodecConfig
from parbyte.recipe import load_recipe
from parbyte.run_folder import BITSTREAM_FILE, DATA_FOLDER, HELDOUT_FILE, LEDGER_FILE
from parbyte.stages import TRAIN_FILE

_DECODED_SAMPLE_BYTES = 1 << 15
"""How much of a text is coded and decoded where there is no bitstream yet."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Somebody else's scorer, as the options name it: a function or a command."""

    function: str | None
    command: str | None
    vocab: int
    bos: int
    chunk: int


def audit_foreign(foreign: Foreign, config: AuditConfig, console: Console) -> Verdict:
    """Audit a function or a command over a made-up text."""
    from parbyte.audit.foreign import CommandScorer, FunctionScorer, load_function

    bos_id = None if foreign.bos < 0 else foreign.bos
    if foreign.vocab < 2 or (bos_id is not None and bos_id >= foreign.vocab):
        raise RecipeError("say how many tokens it prices, e.g. --vocab 1024, and a --bos below it")
    shape = {"vocab_size": foreign.vocab, "bos_id": bos_id, "chunk": foreign.chunk}
    if foreign.function is not None:
        loaded = load_function(foreign.function)
        scorer = FunctionScorer(loaded, name=foreign.function, **shape)
        return _judge_foreign(scorer, config, console)
    assert foreign.command is not None
    process = CommandScorer(foreign.command, **shape)
    try:
        return _judge_foreign(process, config, console)
    finally:
        process.close()


def audit_run(
    folder: Path, deep_steps: int | None, config: AuditConfig, console: Console
) -> Verdict:
    """Audit a run's artifact, ledger and bitstream on its held-out text.

    deep_steps: build the artifact anew for T5 with so many steps, 0: the run's own; None: do not.
    """
    from parbyte.pack.artifact import load_artifact
    from parbyte.score.ledger import read_ledger
    from parbyte.text.prepare import split_documents

    path, codec = artifact_path(folder), load_recipe(folder).codec
    artifact = load_artifact(path)
    documents = list(split_documents(folder / DATA_FOLDER, "heldout", artifact.tokenizer))
    heldout = input_file(folder / HELDOUT_FILE).read_bytes()
    subject = artifact_subject(folder.name, artifact, codec, documents, heldout)
    case = Case(
        subject=subject,
        artifact=path,
        bitstream=folder / BITSTREAM_FILE,
        text=heldout,
        codec=codec,
    )
    if len(heldout) > codec.frame_bytes:
        reason = "the ledger: the text has more than one frame"
        case.gaps.append(NotTested(check="T8", reason=reason))
    elif (folder / LEDGER_FILE).is_file():
        subject.ledger = read_ledger(folder / LEDGER_FILE)
    if deep_steps is None:
        return judge(case, config, console)
    with tempfile.TemporaryDirectory(prefix="parbyte-audit-") as scratch:
        _prepare_rebuild(case, folder, deep_steps, Path(scratch))
        return judge(case, config, console)


def audit_model(
    path: Path, text: Path | None, codec: CodecConfig, config: AuditConfig, console: Console
) -> Verdict:
    """Audit an artifact on a text, or on the built-in one's first chapter."""
    from parbyte.codec.compress import compress_file
    from parbyte.pack.artifact import load_artifact
    from parbyte.text.builtin import kjv_chapters

    artifact = load_artifact(path)
    data = input_file(text).read_bytes() if text else next(iter(kjv_chapters()))
    if not data:
        raise DataError(f"'{text}' is empty: there is nothing to score")
    data = data[: codec.frame_bytes]
    sample = data[:_DECODED_SAMPLE_BYTES]
    with tempfile.TemporaryDirectory(prefix="parbyte-audit-") as name:
        source, bitstream = Path(name) / "sample", Path(name) / "sample.pby"
        source.write_bytes(sample)
        compress_file(path, source, bitstream, codec, Console(quiet=True))
        subject = artifact_subject(
            str(path), artifact, codec, [artifact.tokenizer.encode(data)], data
        )
        case = Case(subject=subject, artifact=path, bitstream=bitstream, text=sample, codec=codec)
        return judge(case, config, console)


def _prepare_rebuild(case: Case, folder: Path, deep_steps: int, scratch: Path) -> None:
    """Give a run's subject the means to be built anew, and say what that leaves out."""
    from parbyte.cli.rebuild import rebuilder

    table = read_json(folder / TRAIN_FILE)
    run_steps = table.get("steps") if isinstance(table, dict) else None
    if not isinstance(run_steps, int):
        raise DataError(f"'{folder / TRAIN_FILE}' does not say how many steps the run made")
    steps = min(deep_steps or run_steps, run_steps)
    case.subject.build = rebuilder(load_recipe(folder), steps, scratch)
    case.subject.build_figures = {"steps": steps, "run_steps": run_steps}
    if case.subject.build is None:
        reason = "a corpus of token shards: only text can be exchanged and tokenized anew"
        case.gaps.append(NotTested(check="T5", reason=reason))
    elif steps < run_steps:
        reason = f"training beyond step {steps:,} of the run's {run_steps:,} (`--deep-steps 0`)"
        case.gaps.append(NotTested(check="T5", reason=reason))


def _judge_foreign(scorer: Scorer, config: AuditConfig, console: Console) -> Verdict:
    import numpy as np

    from parbyte.audit.subject import made_up_text

    sample_N = made_up_text(scorer, np.random.default_rng(config.seed))
    subject = Subject(name=scorer.name, scorer=scorer, sample_N=sample_N)
    return run_audit(subject, config, console)
