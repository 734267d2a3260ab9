import pytest

from parbyte.train.config import TrainConfig
from parbyte.train.schedule import is_looping, is_warming_down, lr_factor, momentum_at

CONFIG = TrainConfig(
    warmup_steps=4,
    warmdown=0.4,
    min_lr=0.1,
    momentum=0.95,
    momentum_start=0.85,
    momentum_warmup_steps=10,
)


@pytest.mark.parametrize(
    ("step", "progress", "factor"),
    [
        (0, 0.0, 0.25),
        (1, 0.0, 0.5),
        (3, 0.01, 1.0),
        (100, 0.5, 1.0),
        (100, 0.6, 1.0),
        (100, 0.7, 1.0 - 0.9 * 0.25),
        (100, 0.8, 0.55),
        (100, 1.0, 0.1),
        (100, 1.2, 0.1),
        (1, 0.8, 0.275),
    ],
)
def test_the_rate_rises_stays_and_falls(step: int, progress: float, factor: float) -> None:
    assert lr_factor(CONFIG, step, progress) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.85), (5, 0.90), (10, 0.95), (999, 0.95)])
def test_the_momentum_warms_up(step: int, momentum: float) -> None:
    assert momentum_at(CONFIG, step) == pytest.approx(momentum)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, False), (0.34, False), (0.35, True)])
def test_the_loop_turns_on_at_its_fraction(progress: float, expected: bool) -> None:
    assert is_looping(TrainConfig(loop_at=0.35), progress) is expected
    assert is_looping(TrainConfig(), progress)


def test_without_warm_up_and_warm_down_the_rate_is_constant() -> None:
    config = TrainConfig(warmup_steps=0, warmdown=0.0, momentum_warmup_steps=0)
    assert {lr_factor(config, s, p) for s in (0, 5) for p in (0.0, 0.5, 1.0, 1.1)} == {1.0}
    assert momentum_at(config, 0) == config.momentum
    assert not is_warming_down(config, 1.0)


def test_a_warm_down_over_everything_falls_from_the_start() -> None:
    config = TrainConfig(warmup_steps=0, warmdown=1.0, min_lr=0.0)
    assert lr_factor(config, 9, 0.25) == pytest.approx(0.75)
