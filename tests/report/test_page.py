"""The page says what the scorecard says, needs no other file, and is the same each time."""

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from parbyte.base.errors import DataError
from parbyte.report.baselines import Baseline
from parbyte.report.page import break_even_bytes, comparison_rows, write_report

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Checker(HTMLParser):
    """Collects text and ids, and insists that every element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and value:
                self.links.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += " ".join(data.split()) + " "


def read_page(run: Path) -> tuple[str, Checker]:
    page = write_report(run)
    assert page == run / "report.html"
    source = page.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(source)
    assert not checker.open, f"never closed: {checker.open}"
    checker.text = " ".join(checker.text.split())
    return source, checker


def test_a_certified_run_leads_with_its_coded_number(make_run: MakeRun) -> None:
    run = make_run()
    card = json.loads((run / "scorecard.json").read_text())
    _, page = read_page(run)
    assert f"Certified: {card['coded_bpb']:.4f} bits per byte" in page.text
    assert f"coded {card['coded_bpb']:.4f}" in page.text
    assert f"measured {card['measured_bpb']:.4f}" in page.text
    assert "claimed none" in page.text
    assert "398,112 of 400,000 bytes" in page.text


def test_an_unproven_run_is_not_certified_and_says_why(make_run: MakeRun) -> None:
    checks = {"decoded_equal": {"passed": False, "text_sha256": "", "text_bytes": 0}}
    reason = "the decoded text has another SHA-256 than the original"
    _, page = read_page(make_run(certified=False, reason=reason, checks=checks))
    assert "Not certified" in page.text and reason in page.text
    assert "Certified:" not in page.text


def test_a_bitstream_that_was_not_decoded_has_no_coded_number(make_run: MakeRun) -> None:
    checks = {"decoded_equal": {"passed": False, "text_sha256": "", "text_bytes": 0}}
    run = make_run(certified=False, reason="damaged", checks=checks)
    card = json.loads((run / "scorecard.json").read_text())
    source, page = read_page(run)
    assert f"not decoded back {card['coded_bpb']:.4f}" in page.text
    assert "(not decoded back)</title>" in source and "parbyte, not decoded back" in page.text
    assert "parbyte, coded" not in page.text and f"coded {card['coded_bpb']:.4f}" not in page.text
    # Nor is it compared with what others made, which was decoded back.
    assert (
        "The bitstream is" not in page.text and "The bitstream is" in read_page(make_run())[1].text
    )


def test_the_passage_shows_every_token_and_the_stages_that_paid(make_run: MakeRun) -> None:
    source, page = read_page(make_run())
    assert "In the <b>" in page.text and "mix <of experts> 1.6000 -5.88 %" in page.text
    assert (
        'class="payer1"' in source and "bits: network 9.00, mix &lt;of experts&gt; 6.00" in source
    )


def test_a_run_outside_its_track_is_certified_with_a_warning(make_run: MakeRun) -> None:
    checks = {
        "decoded_equal": {"passed": True, "text_sha256": "ab" * 32, "text_bytes": 5},
        "score_seconds": {"passed": False, "value": 200.0, "limit": 180.0},
    }
    _, page = read_page(make_run(within_track=False, checks=checks))
    assert "outside the track's limits" in page.text
    assert "Scoring kept to its time 200.0 s of 180.0 s no" in page.text


def test_the_page_needs_no_other_file(make_run: MakeRun) -> None:
    source, page = read_page(make_run())
    assert all(link.startswith("#") for link in page.links), page.links
    assert "<script" not in source and "@import" not in source
    assert "url(" not in re.sub(r"url\(#", "", source)


def test_no_two_elements_share_an_id(make_run: MakeRun) -> None:
    _, page = read_page(make_run())
    assert page.ids and len(page.ids) == len(set(page.ids))


def test_every_reference_inside_a_figure_finds_its_element(make_run: MakeRun) -> None:
    source, page = read_page(make_run())
    wanted = set(re.findall(r"url\(#([^)]+)\)", source)) | {link[1:] for link in page.links}
    assert wanted <= set(page.ids)


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    run = make_run()
    first, _ = read_page(run)
    assert read_page(run)[0] == first


def test_the_page_does_not_tell_where_the_run_lives(make_run: MakeRun) -> None:
    run = make_run()
    source, page = read_page(run)
    assert str(run) not in source
    assert "parbyte prove demo" in page.text
    assert "parbyte decompress demo/model.parbyte demo/heldout.pby" in page.text


def test_every_compressor_stands_in_the_table_and_in_the_figure(make_run: MakeRun) -> None:
    run = make_run()
    _, page = read_page(run)
    for result in json.loads((run / "baselines.json").read_text())["results"]:
        assert page.text.count(result["name"]) >= 2
        assert f"{result['compressed_bytes']:,}" in page.text


def test_compressors_are_measured_once(make_run: MakeRun) -> None:
    run = make_run()
    read_page(run)
    before = (run / "baselines.json").read_bytes()
    read_page(run)
    assert (run / "baselines.json").read_bytes() == before


def test_what_is_quoted_is_escaped(make_run: MakeRun) -> None:
    run = make_run(recipe="<b>bold</b>", artifact_parts={"<i>part</i>": 398_112})
    (run / "sample.txt").write_bytes(b"<script>alert(1)</script> & \xff bytes")
    source, page = read_page(run)
    assert "<script>" not in source and "<b>bold" not in source and "<i>part" not in source
    assert html.unescape("&lt;script&gt;alert(1)&lt;/script&gt; & \ufffd bytes") in page.text


def test_the_easiest_and_the_hardest_documents_are_quoted(make_run: MakeRun) -> None:
    run = make_run()
    _, page = read_page(run)
    assert "The easiest" in page.text and "The hardest" in page.text
    heldout = (run / "data" / "heldout.txt").read_text()
    assert heldout[:60] in page.text


@pytest.mark.parametrize("file", ["scorecard.json", "stages.json", "log.jsonl", "measured.jsonl"])
@pytest.mark.parametrize("damage", [None, "", "[1, 2", "7\n"])
def test_a_missing_or_damaged_file_is_named(make_run: MakeRun, file: str, damage: Any) -> None:
    run = make_run()
    if damage is None:
        (run / file).unlink()
    else:
        (run / file).write_text(damage)
    if file == "log.jsonl" and damage == "":
        _, page = read_page(run)
        assert "Loss over" not in page.text
        return
    with pytest.raises(DataError, match=re.escape(file)):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_run_without_loss_lines_or_documents_still_has_a_page(make_run: MakeRun) -> None:
    run = make_run(dev_bpb=None, notes=[])
    (run / "log.jsonl").write_text("")
    sums = {"kind": "measured", "nats": 0.0, "num_bytes": 0, "num_tokens": 0, "num_documents": 0}
    (run / "measured.jsonl").write_text(json.dumps(sums) + "\n")
    _, page = read_page(run)
    assert "Certified" in page.text


def baseline(compressed_bytes: int) -> Baseline:
    return Baseline(
        name="xz", compressed_bytes=compressed_bytes, text_bytes=1000, shared_bytes=0, seconds=0.1
    )


def test_the_artifact_pays_off_where_both_need_the_same_bytes() -> None:
    card = {"coded_bpb": 1.6, "artifact_bytes": 400_000}
    xz = baseline(275)
    length = break_even_bytes(card, xz)
    assert length is not None
    ours = card["artifact_bytes"] + card["coded_bpb"] / 8 * length
    assert ours == pytest.approx(xz.bpb / 8 * length, rel=1e-6)


def test_an_artifact_that_gains_nothing_never_pays_off() -> None:
    assert break_even_bytes({"coded_bpb": 2.4, "artifact_bytes": 1}, baseline(275)) is None


def test_only_coded_numbers_have_bytes_behind_them() -> None:
    card = {"coded_bpb": 1.6, "measured_bpb": 1.59, "artifact_bytes": 7, "bitstream_bytes": 5}
    card["checks"] = {"decoded_equal": {"passed": True}}
    rows = {row.name: row for row in comparison_rows(card, [baseline(275)])}
    assert rows["parbyte, coded"].compressed_bytes == 5
    assert rows["parbyte, measured"].compressed_bytes is None
    assert rows["xz"].compressed_bytes == 275 and not rows["xz"].is_ours


def test_the_page_says_where_the_bitstream_decodes(make_run: MakeRun) -> None:
    run = make_run()
    assert "another is refused" in read_page(run)[1].text
    (run / "recipe.toml").write_text('[predict]\nengine = "portable"\n')
    text = read_page(run)[1].text
    assert "on any processor" in text and "another is refused" not in text


def a_verdict(**changes: Any) -> dict[str, Any]:
    check = {"check": "T1", "title": "future flip", "passed": False, "seconds": 1.5}
    figures = {"worst_nats": 0.25, "sha256": {"absent": "ab" * 32}, "walls": "those of " + "x" * 40}
    finding = {"check": "T1", "title": "future flip", "severity": "violation", "figures": {}}
    return {
        "format": 1,
        "subject": "demo",
        "artifact_sha256": "ef" * 32,
        "verdict": "invalid",
        "findings": [{**finding, "evidence": "token <5> moved", "rule": "It may not."}],
        "checks": [{**check, "figures": figures}],
        "not_tested": [{"check": "T5", "title": "independence", "reason": "no time"}],
        **changes,
    }


def test_the_page_shows_the_verdict_on_its_artifact(make_run: MakeRun) -> None:
    run = make_run()
    (run / "verdict.json").write_text(json.dumps(a_verdict()))
    _, page = read_page(run)
    for text in (
        "What the audit found: invalid",
        "T1 future flip violation : token <5> moved It may not.",
        "worst nats 0.25; sha256 absent abababababab; walls those of " + "x" * 40 + " 1.5 s failed",
        "T5 independence no time",
    ):
        assert text in page.text
    clean = a_verdict(verdict="certified", findings=[])
    (run / "verdict.json").write_text(json.dumps(clean))
    assert "No check found anything: 1 were made." in read_page(run)[1].text


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps({"format": 1}), json.dumps({"artifact_sha256": "ef" * 32})]
)
def test_a_verdict_that_cannot_be_read_is_not_shown(make_run: MakeRun, text: str) -> None:
    run = make_run()
    (run / "verdict.json").write_text(text)
    assert "audit" not in read_page(run)[1].text


def test_a_verdict_on_another_artifact_is_not_shown(make_run: MakeRun) -> None:
    run = make_run()
    (run / "verdict.json").write_text(json.dumps(a_verdict(artifact_sha256="00" * 32)))
    assert "audit" not in read_page(run)[1].text
