"""The command `audit`: what is to be audited, from files or from somebody else's scorer."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parbyte.base.errors import RecipeError
from parbyte.base.log import Console, console_for
from parbyte.cli.entry import DONE, NOT_PROVEN
from parbyte.cli.options import JsonOption, QuietOption, artifact_path, input_file
from parbyte.cli.output import Row, emit
from parbyte.codec.config import CodecConfig
from parbyte.recipe import is_run_folder, load_recipe
from parbyte.run_folder import BITSTREAM_FILE, DATA_FOLDER, HELDOUT_FILE, LEDGER_FILE

if TYPE_CHECKING:
    from parbyte.audit.run import Answer
    from parbyte.audit.scorer import Scorer
    from parbyte.audit.subject import Subject
    from parbyte.audit.verdict import NotTested, Verdict
    from parbyte.pack.artifact import Artifact

_DECODED_SAMPLE_BYTES = 1 << 15
"""How much of a text is coded and decoded where there is no bitstream yet."""


def audit(
    subject: Annotated[
        str | None, typer.Argument(metavar="[RUN|MODEL]", help="A run folder or an artifact.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to score; of a run: its held-out.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="A Python function that scores.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar="CMD", help="A command that speaks docs/audit.md.")
    ] = None,
    vocab: Annotated[int, typer.Option(min=0, max=65536, help="Its vocabulary's size.")] = 0,
    bos: Annotated[int, typer.Option(min=-1, help="Its BOS; -1: it has none.")] = -1,
    chunk: Annotated[int, typer.Option(min=0, help="Its positions between two updates.")] = 0,
    noise: Annotated[int, typer.Option(min=16, help="Tokens of each noise.")] = 100_000,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Try to show that a score is no codelength; exit 1 unless it is certified."""
    from parbyte.audit.subject import AuditConfig

    if sum(given is not None for given in (subject, scorer, command)) != 1:
        raise RecipeError("give one of RUN|MODEL, --scorer or --command: it is what is audited")
    config, console = AuditConfig(noise_tokens=noise), console_for(quiet=quiet)
    if subject is None:
        if text is not None:
            raise RecipeError("--text needs a tokenizer: give it with a RUN or a MODEL")
        verdict = _audit_foreign(scorer, command, vocab, bos, chunk, config, console)
    elif is_run_folder(subject):
        verdict = _audit_run(Path(subject), text, config, console)
    else:
        verdict = _audit_model(artifact_path(Path(subject)), text, CodecConfig(), config, console)
    emit(verdict.to_json(), verdict_rows(verdict), as_json=as_json)
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


def _audit_foreign(
    function: str | None,
    command: str | None,
    vocab: int,
    bos: int,
    chunk: int,
    config: Any,
    console: Console,
) -> "Verdict":
    from parbyte.audit.foreign import CommandScorer, FunctionScorer, load_function

    bos_id = None if bos < 0 else bos
    if vocab < 2 or (bos_id is not None and bos_id >= vocab):
        raise RecipeError("say how many tokens it prices, e.g. --vocab 1024, and a --bos below it")
    if function is not None:
        loaded = load_function(function)
        scorer = FunctionScorer(loaded, name=function, vocab_size=vocab, bos_id=bos_id, chunk=chunk)
        return _judge_foreign(scorer, config, console)
    assert command is not None
    process = CommandScorer(command, vocab_size=vocab, bos_id=bos_id, chunk=chunk)
    try:
        return _judge_foreign(process, config, console)
    finally:
        process.close()


def _judge_foreign(scorer: "Scorer", config: Any, console: Console) -> "Verdict":
    import numpy as np

    from parbyte.audit.run import audit as run_audit
    from parbyte.audit.subject import Subject, made_up_text

    sample_N = made_up_text(scorer, np.random.default_rng(config.seed))
    subject = Subject(name=scorer.name, scorer=scorer, sample_N=sample_N)
    return run_audit(subject, config, console)


def _audit_run(folder: Path, text: Path | None, config: Any, console: Console) -> "Verdict":
    from parbyte.audit.verdict import NotTested
    from parbyte.pack.artifact import load_artifact
    from parbyte.score.ledger import read_ledger
    from parbyte.text.prepare import split_documents

    path, codec = artifact_path(folder), load_recipe(folder).codec
    if text is not None:
        return _audit_model(path, text, codec, config, console)
    artifact = load_artifact(path)
    documents = list(split_documents(folder / DATA_FOLDER, "heldout", artifact.tokenizer))
    heldout = input_file(folder / HELDOUT_FILE).read_bytes()
    subject = _subject(folder.name, artifact, codec, documents, heldout)
    gaps: list[NotTested] = []
    if len(heldout) > codec.frame_bytes:
        gaps.append(NotTested(check="T8", reason="the ledger: the text has more than one frame"))
    elif (folder / LEDGER_FILE).is_file():
        subject.ledger = read_ledger(folder / LEDGER_FILE)
    bitstream = folder / BITSTREAM_FILE
    return _judge_artifact(subject, path, bitstream, heldout, codec, config, console, gaps)


def _audit_model(
    path: Path, text: Path | None, codec: CodecConfig, config: Any, console: Console
) -> "Verdict":
    from parbyte.codec.compress import compress_file
    from parbyte.pack.artifact import load_artifact
    from parbyte.text.builtin import kjv_chapters

    artifact = load_artifact(path)
    data = input_file(text).read_bytes() if text else next(iter(kjv_chapters()))
    data = data[: codec.frame_bytes]
    documents = [artifact.tokenizer.encode(data)]
    subject = _subject(str(path), artifact, codec, documents, data)
    sample = data[:_DECODED_SAMPLE_BYTES]
    with tempfile.TemporaryDirectory(prefix="parbyte-audit-") as name:
        source, bitstream = Path(name) / "sample", Path(name) / "sample.pby"
        source.write_bytes(sample)
        compress_file(path, source, bitstream, codec, Console(quiet=True))
        return _judge_artifact(subject, path, bitstream, sample, codec, config, console, [])


def _subject(
    name: str, artifact: "Artifact", codec: CodecConfig, documents: Sequence[Any], text: bytes
) -> "Subject":
    import numpy as np

    from parbyte.audit.lanes_scorer import LanesScorer
    from parbyte.audit.subject import Subject, cut_sample
    from parbyte.model.gpt import GPT
    from parbyte.predict.build import build_predictor
    from parbyte.predict.predictor import Predictor
    from parbyte.text.lanes import MIN_LANE_TOKENS

    bos_id, window = artifact.tokenizer.bos_id, int(artifact.predict.get("window", 0))
    bos = np.array([bos_id], np.uint16)
    stream_N = np.concatenate([part for document in documents for part in (bos, document)])

    def scorer(predictor: Predictor) -> LanesScorer:
        return LanesScorer(predictor, bos_id, name=name, window=window)

    blank = GPT(artifact.model.config, seed=0).eval().requires_grad_(False)
    small = scorer(build_predictor(artifact))
    return Subject(
        name=name,
        scorer=small,
        sample_N=cut_sample(small, stream_N),
        text_N=stream_N,
        text=text,
        tokenizer=artifact.tokenizer,
        untrained=scorer(build_predictor(replace(artifact, model=blank))),
        full_scorer=LanesScorer(
            build_predictor(artifact),
            bos_id,
            name=name,
            num_lanes=codec.lanes,
            min_lane_tokens=MIN_LANE_TOKENS,
            window=window,
        ),
    )


def _judge_artifact(
    subject: "Subject",
    path: Path,
    bitstream: Path,
    text: bytes,
    codec: CodecConfig,
    config: Any,
    console: Console,
    gaps: "list[NotTested]",
) -> "Verdict":
    """Make all checks; the bitstream, if it is there, must decode to the text."""
    from parbyte.audit.decode import check_decode
    from parbyte.audit.run import audit as run_audit
    from parbyte.audit.verdict import NotTested
    from parbyte.base.files import sha256_bytes
    from parbyte.codec.conditions import coding_arithmetic

    decoded: list[Answer] = []
    if bitstream.is_file():
        decoded += check_decode(
            path,
            bitstream,
            expected_sha256=sha256_bytes(text),
            expected_bytes=len(text),
            measured_nats=subject.ledger.nats if subject.ledger else None,
        )
        if len(text) < len(subject.text or b""):
            reason = f"all but the text's first {len(text):,} bytes: there is no bitstream of it"
            gaps = [*gaps, NotTested(check="T11", reason=reason)]
    with coding_arithmetic(codec.threads):
        return run_audit(subject, config, console, decoded, gaps)
