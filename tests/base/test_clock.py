"""A stop watch counts what it should and nothing else; time comes from a hand-turned clock."""

import pytest

from parbyte.base import clock
from parbyte.base.clock import Stopwatch, now_s


class HandClock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    hand = HandClock()
    monkeypatch.setattr(clock, "now_s", hand)
    return hand


def test_stamps_never_go_back() -> None:
    stamps = [now_s() for _ in range(100)]
    assert stamps == sorted(stamps)


def test_a_new_watch_runs_from_zero(hand: HandClock) -> None:
    watch = Stopwatch()
    assert watch.elapsed_s() == 0.0
    hand.time_s += 2.5
    assert watch.elapsed_s() == 2.5


def test_paused_time_does_not_count(hand: HandClock) -> None:
    watch = Stopwatch()
    hand.time_s += 1.0
    watch.pause()
    hand.time_s += 50.0
    assert watch.elapsed_s() == 1.0
    watch.resume()
    hand.time_s += 2.0
    assert watch.elapsed_s() == 3.0


def test_pausing_or_resuming_twice_changes_nothing(hand: HandClock) -> None:
    watch = Stopwatch()
    hand.time_s += 1.0
    watch.resume()
    hand.time_s += 1.0
    watch.pause()
    watch.pause()
    hand.time_s += 1.0
    watch.resume()
    watch.resume()
    assert watch.elapsed_s() == 2.0


def test_time_of_an_earlier_process_counts_running_or_paused(hand: HandClock) -> None:
    watch = Stopwatch()
    watch.add_s(60.0)
    assert watch.elapsed_s() == 60.0
    watch.pause()
    watch.add_s(5.0)
    assert watch.elapsed_s() == 65.0
