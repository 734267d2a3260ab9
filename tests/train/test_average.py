import pytest
import torch

from parbyte.base.errors import RecipeError
from parbyte.train.average import WeightAverage, new_average
from parbyte.train.config import TrainConfig


def test_the_average_equals_its_recurrence_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(3, 4)
    average = WeightAverage({"w": weight}, memory=0.25)
    slow = torch.zeros(3, 4, dtype=torch.float64)
    for step in range(40):
        weight.copy_(torch.randn(3, 4, generator=generator))
        average.update_(step)
        rate = 1.0 / max(1.0, 0.25 * (step + 1))
        slow = slow + (weight.double() - slow) * rate
    torch.testing.assert_close(average.weights()["w"].double(), slow, atol=1e-6, rtol=0)


def test_nothing_of_the_first_weights_remains() -> None:
    weight = torch.full((2,), 1e9)
    average = WeightAverage({"w": weight}, memory=0.06)
    weight.fill_(1.0)
    average.update_(0)
    assert torch.equal(average.weights()["w"], torch.ones(2))


def test_a_fixed_decay_is_a_mean_at_first_and_then_the_usual_recurrence() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.full((3, 4), 1e9)
    average = new_average({"w": weight}, TrainConfig(ema_decay=0.9))
    assert average is not None
    seen, slow = [], torch.zeros(3, 4, dtype=torch.float64)
    for step in range(30):
        weight.copy_(torch.randn(3, 4, generator=generator))
        seen.append(weight.double().clone())
        average.update_(step)
        slow = torch.stack(seen).mean(0) if step < 10 else 0.9 * slow + 0.1 * seen[-1]
        torch.testing.assert_close(average.weights()["w"].double(), slow, atol=1e-6, rtol=0)


def test_two_averages_at_a_time_are_refused_and_none_is_none() -> None:
    assert new_average({}, TrainConfig()) is None
    with pytest.raises(RecipeError, match=r"'train\.ema_decay' is 0\.997.*train\.ema = 0\.1"):
        TrainConfig(ema=0.1, ema_decay=0.997)


def test_the_average_of_a_constant_is_the_constant() -> None:
    weight = torch.full((5,), 0.1)
    average = WeightAverage({"w": weight}, memory=0.5)
    for step in range(100):
        average.update_(step)
    assert torch.equal(average.weights()["w"], weight)


@pytest.mark.parametrize("num_steps", [200, 2000])
def test_the_memory_scales_with_the_run(num_steps: int) -> None:
    weight = torch.zeros(1)
    average = WeightAverage({"w": weight}, memory=0.1)
    for step in range(num_steps):
        weight.fill_(step / num_steps)
        average.update_(step)
    # The profile s^(1/m - 1) has its mean at 1 / (1 + m) of the run.
    assert average.weights()["w"].item() == pytest.approx(1 / 1.1, abs=0.01)


def test_a_memory_of_the_whole_run_is_the_plain_mean() -> None:
    weight = torch.zeros(1)
    average = WeightAverage({"w": weight}, memory=1.0)
    for step in range(10):
        weight.fill_(float(step))
        average.update_(step)
    assert average.weights()["w"].item() == pytest.approx(4.5)
