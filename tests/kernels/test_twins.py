"""What the training benchmark puts in a kernel's place computes the same."""

from pathlib import Path

import pytest
import torch
from benchmarks import train as benchmark

from parbyte.kernels.heads import HeadSplit
from parbyte.model.layers import rotary_tables


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


CASES = {
    "heads": ((draw(2, 3, 8, 8), draw(6), *rotary_tables(3, 8, 4, 100.0), HeadSplit(4, 2, 4)), {}),
    "loss": (
        (draw(6, 5), draw(7, 5), torch.tensor([0, 6, -100, 3, 2, 1])),
        {"scale": 1.5, "softcap": 9.0},
    ),
}


@pytest.mark.parametrize("kernel", CASES)
def test_a_twin_computes_what_its_kernel_does(kernel: str) -> None:
    args, options = CASES[kernel]
    for module, name, twin in benchmark.TWINS[kernel]:
        found, expected = getattr(module, name)(*args, **options), twin(*args, **options)
        torch.testing.assert_close(found, expected)


def test_every_kernel_that_is_put_back_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [
        getattr(module, name) for twins in benchmark.TWINS.values() for module, name, _ in twins
    ]
    stand_ins = {"measure": lambda *_, **__: {}, "half_a_forward": lambda *_: {}}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(benchmark, name, stand_in)
    found = benchmark.gains("golf-record", Path(), 1, 1.0, list(benchmark.TWINS))
    assert list(found) == ["with all", *(f"without {kernel}" for kernel in benchmark.TWINS)]
    after = [
        getattr(module, name) for twins in benchmark.TWINS.values() for module, name, _ in twins
    ]
    assert after == before
