"""The audit of one rung: its claim as a foreign scorer over a short excerpt of the text.

Shapes: N tokens of the stream.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.run import audit
from parbyte.audit.scorer import Nats, Stream
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import TITLES, Finding, Verdict
from parbyte.base.log import Console
from parbyte.model.gpt import GPT
from parbyte.seed.rungs import Rung
from parbyte.seed.scale import Scale, audited_scale

_BEYOND = 37
"""Tokens behind the last border, so that the excerpt ends inside a batch."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the audit says of a claim."""

    verdict: str
    conditions: list[str]
    """Those that the rung breaks by its description and that a check has shown."""
    escaped: list[str]
    """Those that it breaks by its description, and no check has shown."""
    evidence: list[dict[str, Any]]
    """For each condition one finding: condition, check, title, severity, evidence."""
    findings: int
    audited_tokens: int

    @property
    def is_right(self) -> bool:
        """True if every condition that the rung breaks was shown, and nothing else accused."""
        return not self.escaped and (bool(self.conditions) == (self.verdict == "invalid"))


def put_on_trial(
    rung: Rung, model: GPT, stream_N: Stream, window: int, config: AuditConfig
) -> Trial:
    """Audit what a rung adds over honest sliding windows, on the beginning of a stream."""
    scale = audited_scale(window, model.config.num_layers, config.noise_tokens)
    scorer = _RungScorer(rung, model, scale)
    span = max(scorer.chunk, scale.in_place.chunk)
    sample_N = stream_N[: scorer.window + 2 * span + _BEYOND]
    subject = Subject(name=rung.name, scorer=scorer, sample_N=sample_N, text_N=sample_N)
    verdict = audit(subject, config, Console(quiet=True))
    return _weigh(rung, verdict, len(sample_N))


class _RungScorer(FunctionScorer):
    """A rung as the audit sees it; what the network alone says helps to estimate sums."""

    def __init__(self, rung: Rung, model: GPT, scale: Scale) -> None:
        self._model, self._windows = model, scale.plain if rung.is_plain else scale.sliding
        super().__init__(
            lambda stream_N: rung.alone(model, self._tokens(stream_N), scale).answer(),
            name=rung.name,
            vocab_size=model.config.vocab_size,
            bos_id=model.config.bos_id,
            chunk=scale.script.stride * scale.script.batch,
            window=scale.script.window,
        )

    @torch.no_grad()
    def guess(self, stream_N: Stream, position: int) -> Nats | None:
        """See Scorer. The network's row under the window that prices the position."""
        window, stride = self._windows.window, self._windows.stride
        start = max(0, math.ceil((position - window) / stride)) * stride
        context_1T = self._tokens(stream_N[start:position])[None]
        row_V = self._model.logits(self._model.hidden(context_1T))[0, -1]
        return row_V.double().softmax(-1).cpu().numpy()

    def _tokens(self, stream_N: Stream) -> Tensor:
        device = next(self._model.parameters()).device
        return torch.from_numpy(stream_N.astype(np.int64)).to(device)


def _weigh(rung: Rung, verdict: Verdict, audited_tokens: int) -> Trial:
    grave = [finding for finding in verdict.findings if finding.severity != "note"]
    shown = {
        condition: next((found for found in grave if found.check in checks), None)
        for condition, checks in rung.breaks.items()
    }
    return Trial(
        verdict=verdict.verdict,
        conditions=[condition for condition, found in shown.items() if found],
        escaped=[condition for condition, found in shown.items() if not found],
        evidence=[_exhibit(condition, found) for condition, found in shown.items() if found],
        findings=len(grave),
        audited_tokens=audited_tokens,
    )


def _exhibit(condition: str, finding: Finding) -> dict[str, Any]:
    shown = {key: asdict(finding)[key] for key in ("check", "severity", "evidence")}
    return {"condition": condition, "title": TITLES[finding.check], **shown}
