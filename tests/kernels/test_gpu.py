"""The Triton kernels on a GPU against float64: bfloat16 errors, every element, ragged sizes."""

import pytest
import torch
from torch import Tensor

from parbyte.kernels.loss import fused_cross_entropy, plain_cross_entropy
from parbyte.kernels.mlp import fused_mlp, plain_mlp

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-2


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, device="cuda")).bfloat16()


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_the_fused_mlp_and_its_gradients(slope: float) -> None:
    case = draw(1024, 512), draw(2048, 512, scale=0.04), draw(512, 2048, scale=0.02)
    inputs = [tensor.requires_grad_() for tensor in case]
    exact = [tensor.detach().double().requires_grad_() for tensor in case]
    pull = draw(1024, 512)
    value, expected = fused_mlp(*inputs, slope), plain_mlp(*exact, slope)
    assert relative_error(value, expected) < TOLERANCE
    value.backward(pull)
    expected.backward(pull.double())
    for a, b in zip(inputs, exact, strict=True):
        assert a.grad is not None and b.grad is not None
        assert relative_error(a.grad, b.grad) < TOLERANCE


@pytest.mark.parametrize("vocab_size", [1024, 5000, 8192])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 30.0), (2.0, 0.0)])
def test_the_fused_loss_and_its_gradients(vocab_size: int, scale: float, softcap: float) -> None:
    # More rows than one chunk of 8,192 ids takes.
    hidden, weight = draw(30_000, 64), draw(vocab_size, 64, scale=0.3)
    targets = torch.randint(vocab_size, (len(hidden),), device="cuda")
    targets[::7] = -100
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight)]
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    options = {"scale": scale, "softcap": softcap}
    value = fused_cross_entropy(*inputs, targets, **options)
    expected = plain_cross_entropy(exact[0], exact[1], None, targets, **options)
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    value.backward()
    expected.backward()
    for a, b in zip(inputs, exact, strict=True):
        assert a.grad is not None and b.grad is not None
        assert relative_error(a.grad, b.grad) < TOLERANCE


def test_the_fused_loss_needs_half_a_gibibyte() -> None:
    hidden = draw(98_304, 512).requires_grad_()
    weight = draw(8192, 512, scale=0.05).requires_grad_()
    targets = torch.randint(8192, (98_304,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = fused_cross_entropy(hidden, weight, targets, scale=1.0, softcap=30.0)
    assert torch.cuda.max_memory_allocated() - before <= 2**29
    loss.backward()
