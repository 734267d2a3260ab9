import pytest
import torch

from parbyte.base.world import World
from parbyte.train import budget as budget_module
from parbyte.train.budget import Budget
from parbyte.train.config import TrainConfig

CPU = torch.device("cpu")


class Clock:
    """A stop watch that stands still unless told."""

    seconds = 0.0

    def __init__(self) -> None:
        self.running = True

    def elapsed_s(self) -> float:
        return Clock.seconds

    def add_s(self, seconds: float) -> None:
        Clock.seconds += seconds

    def pause(self) -> None:
        self.running = False

    def resume(self) -> None:
        self.running = True


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.seconds = 0.0
    monkeypatch.setattr(budget_module, "Stopwatch", Clock)


def run(budget: Budget, step_s: float) -> list[budget_module.Tick]:
    ticks = [budget.tick(0)]
    while not ticks[-1].stop:
        Clock.seconds += step_s
        ticks.append(budget.tick(len(ticks)))
    return ticks


def test_the_last_step_ends_within_the_budget_and_no_further_step_would() -> None:
    ticks = run(Budget(TrainConfig(seconds=10.0), World(), CPU), step_s=0.3)
    assert 10.0 - 2 * 0.3 < ticks[-1].elapsed_s <= 10.0
    assert ticks[10].progress == pytest.approx(0.3)


def test_one_step_is_made_however_small_the_budget() -> None:
    ticks = run(Budget(TrainConfig(seconds=0.01), World(), CPU), step_s=5.0)
    assert [tick.stop for tick in ticks] == [0.0, 1.0]


def test_steps_are_counted_whatever_the_clock_says() -> None:
    ticks = run(Budget(TrainConfig(seconds=1.0, steps=8), World(), CPU), step_s=100.0)
    assert [tick.progress for tick in ticks] == [step / 8 for step in range(9)]
    assert [tick.stop for tick in ticks] == [0.0] * 8 + [1.0]


def test_a_resumed_run_gets_what_is_left() -> None:
    config = TrainConfig(seconds=10.0)
    budget = Budget(config, World(), CPU, step=20, elapsed_s=8.0)
    first = budget.tick(20)
    assert first.progress == pytest.approx(0.8) and not (first.log or first.save or first.stop)
    done = Budget(config, World(), CPU, step=20, elapsed_s=1.9).tick(20)
    assert done.stop, "9.9 of 10 seconds are spent and a step takes half a second"


def test_figures_checkpoints_and_lines_come_at_their_intervals() -> None:
    config = TrainConfig(
        seconds=20.0, log_every_seconds=2.0, checkpoint_seconds=5.0, dev_every_seconds=8.0
    )
    ticks = run(Budget(config, World(), CPU), step_s=1.0)
    made = range(len(ticks))
    assert [step for step in made if ticks[step].save] == [5, 10, 15, 19]
    assert [step for step in made if ticks[step].develop] == [8, 16, 19]
    assert [step for step in made if ticks[step].log] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]


def test_intervals_of_zero_mean_never_but_for_the_log() -> None:
    config = TrainConfig(
        steps=4, log_every_seconds=0.0, checkpoint_seconds=0.0, dev_every_seconds=0.0
    )
    ticks = run(Budget(config, World(), CPU), step_s=1.0)
    assert [tick.log for tick in ticks] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert not any(tick.save for tick in ticks)
    assert [tick.develop for tick in ticks] == [0.0] * 4 + [1.0]


def test_several_gpus_ask_every_few_steps_and_run_on_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    world, cuda = World(rank=0, size=2), torch.device("cuda")

    def broadcast(_: World, values: list[float], __: str) -> list[float]:
        asked.append(values)
        return values

    monkeypatch.setattr(budget_module, "broadcast_floats", broadcast)
    ticks = run(Budget(TrainConfig(seconds=100.0), world, cuda), step_s=1.0)
    assert len(asked) < len(ticks) / 6
    assert [tick.progress for tick in ticks] == pytest.approx([s / 100 for s in range(len(ticks))])
    assert ticks[-1].elapsed_s <= 100.0


def test_other_ranks_do_what_rank_0_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []

    def broadcast(world: World, values: list[float], _: str) -> list[float]:
        if world.is_main:
            sent[:] = values
        return list(sent)

    monkeypatch.setattr(budget_module, "broadcast_floats", broadcast)
    config = TrainConfig(seconds=10.0)
    budgets = [Budget(config, World(rank=rank, size=2), CPU) for rank in range(2)]
    Clock.seconds = 4.0
    main = budgets[0].tick(0)
    Clock.seconds = 9.99
    assert budgets[1].tick(0) == main


def test_what_happens_outside_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    budget = Budget(TrainConfig(seconds=10.0), World(), CPU)
    with budget.outside():
        before = budget.elapsed_s()
        sum(range(10_000))
        assert budget.elapsed_s() == before
    assert budget.elapsed_s() >= before
