"""T9: a tokenizer restores what it took, and owes each byte once."""

from collections.abc import Iterator

import numpy as np

from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import CheckResult, Finding, NotTested
from parbyte.base.errors import DataError
from parbyte.text.tokenizer import Tokenizer

CORNERS = {
    "empty": b"",
    "leading space": b" leading",
    "two spaces": b"two  spaces  in  a  row ",
    "upper case": b"UPPER Lower mIXED",
    "newlines": b"\n\nline\r\n\tindented\n",
    "accents": "na\u00efve caf\u00e9, \u00fcber".encode(),
    "decomposed accents": "cafe\u0301".encode(),
    "Chinese": "\u6c49\u5b57 and \u8bed\u8a00".encode(),
    "emoji": "\U0001f600\u200d\U0001f525".encode(),
    "no UTF-8": bytes([0xFF, 0xFE, 0x20, 0xC3, 0x28]),
    "all bytes": bytes(range(256)),
    "word mark": "\u2581under \u2581 \u2581\u2581".encode(),
    "zero": b"a\0b",
    "full width": "\uff21\uff22 \ufb01".encode(),
}
"""Strings on which byte tables went wrong before."""
_SHOWN = 5
_TEXT_BYTES = 2_000_000


def check_bytes(subject: Subject, config: AuditConfig) -> CheckResult | NotTested:
    """T9: corner cases, every single token, and the text itself."""
    tokenizer = subject.tokenizer
    if tokenizer is None:
        return NotTested(check="T9", reason="no tokenizer was given")
    findings, refused = [], []
    cases = dict(CORNERS)
    if subject.text is not None:
        cases["the text"] = subject.text[:_TEXT_BYTES]
    for name, text in cases.items():
        try:
            ids = tokenizer.encode(text)
        except DataError:
            refused.append(name)
            if tokenizer.is_lossless or name == "the text":
                findings.append(_violation(f"'{name}' is refused", name))
            continue
        findings += [_violation(fault, name) for fault in _faults(tokenizer, name, text, ids)]
    findings += [_violation(fault, "vocabulary") for fault in _token_faults(tokenizer)]
    if subject.text is not None and subject.text_N is not None:
        counted = int(tokenizer.byte_counts(subject.text_N).sum())
        if counted != len(subject.text):
            fault = f"the stream's bytes sum to {counted:,}, the text has {len(subject.text):,}"
            findings.append(_violation(fault, "the stream"))
    figures = {"strings": len(cases), "refused": refused, "tokens": tokenizer.vocab_size}
    return CheckResult(check="T9", findings=tuple(findings[:_SHOWN]), figures=figures)


def _faults(tokenizer: Tokenizer, name: str, text: bytes, ids: np.ndarray) -> Iterator[str]:
    if tokenizer.decode(ids) != text:
        yield f"'{name}' is not restored: {len(text):,} bytes became other bytes"
    counts = tokenizer.byte_counts(ids)
    if len(counts) != len(ids) or int(counts.sum()) != len(text):
        yield f"'{name}' has {len(text):,} bytes, its tokens count {int(counts.sum()):,}"


def _token_faults(tokenizer: Tokenizer) -> Iterator[str]:
    """Every token, alone and behind another, counts the bytes that it adds."""
    ids = np.arange(tokenizer.vocab_size, dtype=np.uint16)
    ids = ids[ids != tokenizer.bos_id]
    for stream, what in ((ids, "in order"), (ids[::-1], "backwards"), (np.tile(ids, 2), "twice")):
        counted, there = int(tokenizer.byte_counts(stream).sum()), len(tokenizer.decode(stream))
        if counted != there:
            yield f"the whole vocabulary {what} is {there:,} bytes, its tokens count {counted:,}"


def _violation(evidence: str, name: str) -> Finding:
    return Finding(check="T9", severity="violation", evidence=evidence, figures={"string": name})
