"""The honest twin of a rung: measured, coded, decoded by a fresh process, audited."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parbyte.audit.artifact_case import Case, artifact_subject, judge
from parbyte.audit.subject import AuditConfig
from parbyte.audit.verdict import DECODE
from parbyte.base.files import write_bytes
from parbyte.base.log import Console
from parbyte.codec.compress import compress_documents
from parbyte.codec.config import CodecConfig
from parbyte.pack.artifact import load_artifact, with_predict
from parbyte.scoring import measure_documents
from parbyte.seed.material import NO_CAP, Excerpt

_SAMPLE_LANES, _BEYOND = 3, 7
"""The sample shows each of the audit's lanes a full window, a chunk, and some tokens behind."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What an honest predictor makes of the text."""

    verdict: str
    findings: list[str]
    measured_bpb: float
    coded_bpb: float | None
    """None if the bitstream did not decode to the text."""
    bitstream_bytes: int
    artifact_bytes: int


def try_twin(
    name: str,
    artifact_blob: bytes,
    predict: Mapping[str, Any],
    excerpt: Excerpt,
    codec: CodecConfig,
    audit_config: AuditConfig,
    folder: Path,
) -> Twin:
    """Write the artifact with other predictor settings, code the text with it, audit both.

    Leaves NAME.parbyte and NAME.pby in the folder.
    """
    quiet = Console(quiet=True)
    path, bitstream = folder / f"{name}.parbyte", folder / f"{name}.pby"
    write_bytes(path, with_predict(artifact_blob, dict(predict), NO_CAP))
    artifact = load_artifact(path)
    ledger, _ = measure_documents(artifact, excerpt.ids, codec, quiet)
    coded = compress_documents(artifact, codec, excerpt.documents, bitstream, quiet)
    subject = artifact_subject(name, artifact, codec, excerpt.ids, excerpt.text)
    subject.ledger = ledger
    borders = subject.scorer.window + subject.scorer.chunk + _BEYOND
    subject.sample_N = subject.sample_N[: _SAMPLE_LANES * borders]
    case = Case(subject=subject, artifact=path, bitstream=bitstream, text=excerpt.text, codec=codec)
    verdict = judge(case, audit_config, quiet)
    is_decoded = any(check.check == DECODE and check.passed for check in verdict.checks)
    return Twin(
        verdict=verdict.verdict,
        findings=[f"{found.check}: {found.evidence}" for found in verdict.findings],
        measured_bpb=ledger.bpb,
        coded_bpb=coded.bpb if is_decoded else None,
        bitstream_bytes=coded.bitstream_bytes,
        artifact_bytes=path.stat().st_size,
    )
