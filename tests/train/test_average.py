import pytest
import torch

from parbyte.train.average import WeightAverage


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
