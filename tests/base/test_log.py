"""News goes to stderr, in plain lines off a terminal, and not at all when quiet."""

import io
import sys

import pytest

from parbyte.base import log
from parbyte.base.log import Console, console_for


def test_news_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("packed 400,000 bytes")
    captured = capsys.readouterr()
    assert captured.err == "packed 400,000 bytes\n" and captured.out == ""


def test_a_quiet_console_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.say("news")
    with console.progress("score", 10) as bar:
        bar.update(10, {"bpb": "1.5"})
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_cannot_come_between_a_text_and_the_end_of_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            super().write(text)
            raise KeyboardInterrupt

    err = Interrupted()
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(KeyboardInterrupt):
        Console().say("packed 400,000 bytes")
    assert err.getvalue() == "packed 400,000 bytes\n"


def test_off_a_terminal_there_are_no_live_bars(capsys: pytest.CaptureFixture[str]) -> None:
    assert not console_for(quiet=False).live
    assert console_for(quiet=True).quiet


def test_plain_progress_speaks_at_intervals_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 1.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(log, "now_s", lambda: next(seconds))
    with Console().progress("score", 4) as bar:
        for done in (1, 2, 3, 4):
            bar.update(done, {"bpb": f"{done}.0"})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["50.0%", "100.0%"]
    assert "bpb 2.0" in lines[0] and " 10 s left" in lines[0] and " 0 s left" in lines[1]


def test_time_left_is_told_once_work_is_steady_and_leaves_out_what_came_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kernels compile for a minute; then a unit of work takes a second.
    seconds = iter([0.0, 30.0, 60.0, 62.0, 66.0, 72.0])
    monkeypatch.setattr(log, "now_s", lambda: next(seconds))
    with Console().progress("train", 100) as bar:
        for done in (0, 1, 3, 7, 13):
            bar.update(done)
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        ["train", "0.0%"],
        ["train", "1.0%"],
        ["train", "7.0%", "93", "s", "left"],
        ["train", "13.0%", "87", "s", "left"],
    ]


def test_the_end_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("score", 4) as bar:
        for done in (4, 4, 5):
            bar.update(done)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_nothing_to_do_is_finished_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("score", 0) as bar:
        bar.update(0)
    captured = capsys.readouterr()
    assert captured.out == "" and "nan" not in captured.err


def test_live_progress_draws_on_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(live=True).progress("score", 2) as bar:
        bar.update(2, {"bpb": "1.5"})
    captured = capsys.readouterr()
    assert "score" in captured.err and captured.out == ""
