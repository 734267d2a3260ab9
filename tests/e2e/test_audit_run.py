"""`parbyte audit RUN`: certified, kept beside the run, shown in its report, built anew if asked."""

import json
from pathlib import Path

import pytest
from tests.e2e.conftest import Command

from parbyte import stages
from parbyte.base.files import sha256_bytes, sha256_file
from parbyte.cli.rebuild import write_corpus
from parbyte.recipe import Recipe
from parbyte.text.config import TextConfig
from parbyte.text.sources import open_corpus

CHECKS = {f"T{n}" for n in range(1, 13)}
QUICK = ("--noise", "300", "--quiet", "--json")


def test_the_report_shows_a_verdict_on_its_artifact_and_on_no_other(
    run: Path, parbyte: Command
) -> None:
    answer = parbyte("audit", run, *QUICK)
    verdict = json.loads(answer.out)
    assert (answer.code, verdict["verdict"]) == (0, "certified")
    assert {check["check"] for check in verdict["checks"]} == CHECKS - {"T5"}
    assert json.loads((run / "verdict.json").read_text()) == verdict
    assert verdict["artifact_sha256"] == sha256_file(run / "model.parbyte")
    assert "What the audit found" in (run / "report.html").read_text()
    assert "report: finished before, skipped" in parbyte("run", run).err
    other = {**verdict, "artifact_sha256": "0" * 64}
    (run / "verdict.json").write_text(json.dumps(other))
    assert parbyte("run", run, "--quiet").code == 0
    assert "What the audit found" not in (run / "report.html").read_text()


@pytest.mark.slow
def test_deep_builds_anew_and_gets_the_same_bytes(run: Path, parbyte: Command) -> None:
    answer = parbyte("audit", run, "--deep", "--deep-steps", "3", *QUICK)
    verdict = json.loads(answer.out)
    assert (answer.code, verdict["verdict"]) == (0, "certified")
    (deep,) = [check for check in verdict["checks"] if check["check"] == "T5"]
    assert (deep["figures"]["steps"], deep["figures"]["run_steps"]) == (3, 20)
    assert set(deep["figures"]["sha256"]) == {"as it is", "permuted", "absent"}
    assert len(set(deep["figures"]["sha256"].values())) == 1
    (gap,) = [gap for gap in verdict["not_tested"] if gap["check"] == "T5"]
    assert "beyond step 3" in gap["reason"]


@pytest.mark.slow
def test_a_pipeline_that_looks_at_the_heldout_text_is_caught(
    run: Path, parbyte: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = stages._artifact_label

    def peeking(recipe: Recipe) -> dict[str, str]:
        heldout = Path(recipe.text.heldout)
        seen = heldout.read_bytes() if heldout.is_file() else b""
        return {**honest(recipe), "calibrated": sha256_bytes(seen)[:8]}

    monkeypatch.setattr(stages, "_artifact_label", peeking)
    answer = parbyte("audit", run, "--deep", "--deep-steps", "2", *QUICK)
    verdict = json.loads(answer.out)
    assert (answer.code, verdict["verdict"]) == (1, "invalid")
    assert {finding["check"] for finding in verdict["findings"]} == {"T5"}
    assert "invalid" in (run / "report.html").read_text()


def test_deep_needs_a_run(run: Path, parbyte: Command) -> None:
    assert "give a RUN" in parbyte("audit", run / "model.parbyte", "--deep").complaint
    assert "give a RUN" in parbyte("audit", run, "--text", run / "sample.txt", "--deep").complaint


def test_a_written_corpus_reads_as_the_same_documents(tmp_path: Path) -> None:
    documents = [b"one\n\ntwo\n", b"caf\xc3\xa9", b"\xff\xfe", b"\xff", b'"quoted"\\', b"end"]
    write_corpus(documents, tmp_path)
    config = TextConfig(corpus=str(tmp_path), documents="file")
    assert list(open_corpus(config).documents()) == documents
