"""All checks over one subject, in the order of their cost; the result is the verdict."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread

from parbyte.audit.ablation import check_ablation
from parbyte.audit.bytes_check import check_bytes
from parbyte.audit.counterfactual import check_counterfactual
from parbyte.audit.coverage import check_coverage
from parbyte.audit.flip import check_flip, check_suffix
from parbyte.audit.independence import check_independence
from parbyte.audit.noise import check_noise
from parbyte.audit.prefix import check_prefix
from parbyte.audit.rerun import check_rerun
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.audit.verdict import TITLES, CheckResult, NotTested, Verdict
from parbyte.base.clock import Stopwatch
from parbyte.base.log import Console

Check = Callable[[Subject, AuditConfig], CheckResult | NotTested]
Answer = CheckResult | NotTested

BLACK_BOX: dict[str, Check] = {
    "T8": check_coverage,
    "T9": check_bytes,
    "T1": check_flip,
    "T4": check_suffix,
    "T3": check_prefix,
    "T2": check_counterfactual,
    "T10": check_rerun,
    "T6": check_noise,
    "T7": check_ablation,
    "T5": check_independence,
}
"""The checks that need no decoding."""
_WITH_FULL_SCORER = ("T8", "T6")
"""Those that walk with the full scorer, which can do one walk at a time; no other check has it."""


def audit(
    subject: Subject,
    config: AuditConfig,
    console: Console,
    decoded: Sequence[Answer] = (),
    not_tested: Sequence[NotTested] = (),
) -> Verdict:
    """Make every check that the subject permits and return the verdict.

    decoded: what `audit.decode` says of T11 and T12. not_tested: gaps that the caller knows of.
    """
    answers: list[Answer] = []
    full_scorer = subject.full_scorer
    beside: tuple[str, ...] = ()
    if full_scorer is not None and full_scorer.runs_beside:
        beside = _WITH_FULL_SCORER
    waiting = _beside(lambda: [_ask(name, subject, config, console) for name in beside])
    answers += [_ask(name, subject, config, console) for name in BLACK_BOX if name not in beside]
    answers += waiting.result()
    answers += decoded
    known = {answer.check for answer in answers}
    reason = "there is no bitstream to decode"
    answers += [NotTested(check=c, reason=reason) for c in ("T11", "T12") if c not in known]
    order = list(TITLES)
    answers.sort(key=lambda answer: order.index(answer.check))
    gaps = [answer for answer in answers if isinstance(answer, NotTested)]
    return Verdict(
        subject=subject.name,
        artifact_sha256=subject.artifact_sha256,
        checks=tuple(answer for answer in answers if isinstance(answer, CheckResult)),
        not_tested=(*gaps, *known_gaps(subject), *not_tested),
    )


def known_gaps(subject: Subject) -> list[NotTested]:
    """Return what the checks could not look at in this subject."""
    scorer, gaps = subject.scorer, []
    if not scorer.chunk:
        reason = "borders of its chunks: their length is not known (`--chunk`)"
        gaps.append(NotTested(check="T2", reason=reason))
    if subject.text_N is None:
        gaps.append(NotTested(check="T8", reason="the whole text: only a sample was scored"))
    if subject.tokenizer is not None and subject.text is None:
        gaps.append(NotTested(check="T9", reason="the text: only corner cases were tried"))
    if not scorer.takes_apart:
        reason = "inputs and targets apart: this scorer takes one stream of both"
        gaps.append(NotTested(check="T1", reason=reason))
    return gaps


def _ask(name: str, subject: Subject, config: AuditConfig, console: Console) -> Answer:
    watch = Stopwatch()
    answer = BLACK_BOX[name](subject, config)
    if isinstance(answer, CheckResult):
        answer = replace(answer, seconds=watch.elapsed_s())
        console.say(f"{name:4}{TITLES[name]}: {_word(answer)}, {answer.seconds:.1f} s")
    return answer


def _beside(work: Callable[[], list[Answer]]) -> Future[list[Answer]]:
    """Start work in a thread that nobody has to wait for, so that Ctrl-C ends the audit at once."""
    answers: Future[list[Answer]] = Future()

    def run() -> None:
        try:
            answers.set_result(work())
        except BaseException as error:  # it belongs to whoever asks for the result
            answers.set_exception(error)

    Thread(target=run, daemon=True, name="parbyte-audit").start()
    return answers


def _word(result: CheckResult) -> str:
    if not result.passed:
        return f"{len(result.findings)} found"
    return "passed" if not result.findings else "passed, with a note"
