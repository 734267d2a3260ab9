"""The page and the table say what kind every number is."""

from typing import Any

from parbyte.cli.seed_commands import ladder_rows
from parbyte.seed.page import draw, render, write_page


def ladder() -> dict[str, Any]:
    """Return a ladder of two rungs with numbers that are told apart."""
    rung = {
        "name": "packed",
        "does": "windows <side by side>",
        "claimed_bpb": 1.1111,
        "verdict": "not proven",
        "conditions": [],
        "escaped": [],
        "evidence": [],
        "audited_tokens": 100,
        "repair": "the same, coded",
        "measured_bpb": 2.2222,
        "coded_bpb": 3.3333,
        "twin_verdict": "certified",
        "twin_findings": [],
    }
    exhibit = {
        "condition": "C2",
        "check": "T6",
        "title": "noise bound",
        "severity": "proof of invalidity",
        "evidence": "priced at <nothing>",
    }
    top = rung | {
        "name": "+ n-gram",
        "claimed_bpb": 0.4444,
        "verdict": "invalid",
        "conditions": ["C2"],
        "escaped": ["C1"],
        "evidence": [exhibit],
        "coded_bpb": None,
        "twin_verdict": "invalid",
        "twin_findings": ["T11: it did not decode"],
    }
    return {
        "run": "toy",
        "text": {"name": "held-out text", "bytes": 1234, "tokens": 321},
        "train_steps": 20,
        "parameters": 99,
        "vocab_size": 16,
        "rungs": [rung, top],
        "ttt": {"tokens": 77, "rates": [{"share": 0.3, "measured_bpb": 5.5555}]},
        "claimed_below_twin_percent": 80.0,
        "claimed_below_best_measured_percent": 80.0,
        "all_convicted": False,
        "all_certified": False,
        "settings": {
            "script": {"window": 16, "stride": 4, "batch": 128},
            "slot": {"steps": 24, "lr": 0.432},
            "mixer": {"buckets": 256, "max_order": 16},
            "in_place": {"chunk": 256},
        },
        "seconds": 1.0,
        "machine": {"cpu": "a processor", "threads": 1, "cores": 2, "gpu": ""},
        "versions": {"torch": "2"},
    }


def test_no_number_stands_without_its_kind(tmp_path: Any) -> None:
    made = ladder()
    rows = "\n".join(" ".join(row) for row in ladder_rows(made, tmp_path / "ladder.html"))
    assert "0.3 gave 5.5555 bpb (measured)" in render(made, draw(made))
    for text in (render(made, draw(made)), draw(made), rows):
        for number, kind in (("1.1111", "claimed"), ("0.4444", "claimed"), ("3.3333", "coded")):
            assert text.count(number) == text.count(f"{number} bpb ({kind})") > 0


def test_a_twin_that_did_not_decode_has_no_coded_number() -> None:
    made = ladder()
    assert "not decoded" in render(made, draw(made))
    assert "2.2222 bpb (measured)" in draw(made)


def test_what_the_audit_did_not_show_is_said() -> None:
    made = ladder()
    page = render(made, draw(made))
    assert "invalid: C2 by T6, C1 NOT shown" in page
    assert "priced at &lt;nothing&gt;" in page and "<nothing>" not in page


def test_the_page_and_the_picture_are_written_and_repeatable(tmp_path: Any) -> None:
    path = write_page(ladder(), tmp_path)
    first = (path.read_bytes(), (tmp_path / "ladder.svg").read_bytes())
    write_page(ladder(), tmp_path)
    assert (path.read_bytes(), (tmp_path / "ladder.svg").read_bytes()) == first
