"""T11 and T12: decode in a fresh process behind shut doors, and compare bytes and bits."""

from collections.abc import Mapping
from pathlib import Path

from parbyte.audit.isolation import WORKER, is_refusal, walls
from parbyte.audit.proof import ProofResult, prove
from parbyte.audit.verdict import CheckResult, Finding
from parbyte.base.units import nats_to_bits

_SLACK = 0.02
_SLACK_BITS = 8192.0
"""Lanes, headers, rounding of frequencies: what a bitstream may cost beyond the measured bits."""


def check_decode(
    artifact: Path,
    bitstream: Path,
    *,
    expected_sha256: str,
    expected_bytes: int,
    original: Path | None = None,
    measured_nats: float | None = None,
    quiet: bool = True,
) -> tuple[CheckResult, CheckResult]:
    """Return T11 and T12. If a shut door stops the decoder, T11 is tried with the doors open.

    Raises DataError if a file cannot be read, ResourceError if there is no room for the proof.
    """
    around = walls()

    def decode(*, shut: bool) -> ProofResult:
        return prove(
            artifact,
            bitstream,
            expected_sha256=expected_sha256,
            expected_bytes=expected_bytes,
            original=original,
            quiet=quiet,
            launcher=around.launcher if shut else (),
            worker=WORKER if shut else None,
        )

    result = decode(shut=True)
    refused = result.reason if is_refusal(result.reason) else ""
    figures = {"network": around.network, "files": around.files}
    shut = _result("T12", refused, figures, 0.0)
    if refused:
        result = decode(shut=False)
    return _proof(result, measured_nats), shut


def _proof(result: ProofResult, measured_nats: float | None) -> CheckResult:
    bits = 8.0 * result.bitstream_bytes
    figures = {
        "text_sha256": result.text_sha256,
        "text_bytes": result.text_bytes,
        "coded_bits": bits,
        "measured_bits": None,
    }
    reason = result.reason
    if measured_nats is not None:
        measured = nats_to_bits(measured_nats)
        figures["measured_bits"] = measured
        if not reason and bits > measured * (1 + _SLACK) + _SLACK_BITS:
            reason = f"the bitstream has {bits:,.0f} bits, the score says {measured:,.0f}"
    return _result("T11", reason, figures, result.seconds)


def _result(check: str, reason: str, figures: Mapping[str, object], seconds: float) -> CheckResult:
    found = Finding(check=check, severity="violation", evidence=reason) if reason else None
    return CheckResult(
        check=check, findings=(found,) if found else (), figures=figures, seconds=seconds
    )
