"""Both computations of the loss against float64, gradients included."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parbyte.kernels import loss as loss_module
from parbyte.kernels.loss import (
    chunked_cross_entropy,
    fused_cross_entropy,
    plain_cross_entropy,
    softcapped_cross_entropy,
    softcapped_logits,
)

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def make_case(rows: int = 23, width: int = 5, vocab: int = 11) -> Case:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator)
    bias = torch.randn(vocab, generator=generator)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[[0, 4, rows - 1]] = -100
    return hidden, weight, bias, targets


def reference_loss(case: Case, use_bias: bool, scale: float, softcap: float) -> float:
    hidden, weight, bias, targets = case
    total, count = 0.0, 0
    for row, target in zip(hidden.double(), targets.tolist(), strict=True):
        if target == -100:
            continue
        logits = [scale * float(w @ row) for w in weight.double()]
        if use_bias:
            logits = [z + float(b) for z, b in zip(logits, bias.double(), strict=True)]
        if softcap:
            logits = [softcap * math.tanh(z / softcap) for z in logits]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[target]
        count += 1
    return total / count


def value_and_grads(function: Callable[..., Tensor], case: Case, use_bias: bool, **options: float):
    hidden, weight, bias, targets = case
    inputs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    if use_bias:
        inputs.append(bias.clone().requires_grad_())
    bias_input = inputs[2] if use_bias else None
    value = function(inputs[0], inputs[1], bias_input, targets, **options)
    return value, torch.autograd.grad(3.0 * value, inputs)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (4.0, 0.0), (2.0, 3.0)])
def test_both_losses_equal_a_float64_loop(use_bias: bool, scale: float, softcap: float) -> None:
    case = make_case()
    expected = reference_loss(case, use_bias, scale, softcap)
    for function in (plain_cross_entropy, chunked_cross_entropy):
        value, _ = value_and_grads(function, case, use_bias, scale=scale, softcap=softcap)
        assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (4.0, 0.0), (2.0, 3.0)])
def test_chunked_gradients_equal_autograd_in_float64(
    use_bias: bool, scale: float, softcap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "_CHUNK_ELEMENTS", 1)
    case = make_case(rows=43)
    wide = (case[0].double(), case[1].double(), case[2].double(), case[3])
    _, grads = value_and_grads(chunked_cross_entropy, case, use_bias, scale=scale, softcap=softcap)
    hidden, weight, bias = (x.requires_grad_() for x in wide[:3])
    logits = scale * hidden @ weight.T + (bias if use_bias else 0.0)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    value = 3.0 * torch.nn.functional.cross_entropy(logits, wide[3], ignore_index=-100)
    expected = torch.autograd.grad(value, [hidden, weight, bias][: len(grads)])
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (4.0, 0.0), (2.0, 3.0)])
def test_the_fused_loss_and_its_gradients_equal_autograd_in_float64(
    scale: float, softcap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "_GPU_CHUNK_ELEMENTS", 11 * 10)
    hidden, weight, _, targets = make_case(rows=43)
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    value = fused_cross_entropy(*inputs, targets, scale=scale, softcap=softcap)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    logits = scale * exact[0] @ exact[1].T
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    grads, wanted = torch.autograd.grad(3 * value, inputs), torch.autograd.grad(3 * expected, exact)
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("function", [plain_cross_entropy, chunked_cross_entropy])
def test_ignored_rows_get_no_gradient_and_a_fully_ignored_batch_costs_nothing(function) -> None:
    hidden, weight, bias, targets = make_case()
    _, grads = value_and_grads(
        function, (hidden, weight, bias, targets), True, scale=1.0, softcap=0.0
    )
    assert torch.equal(grads[0][4], torch.zeros(5))
    nothing = (hidden, weight, bias, torch.full_like(targets, -100))
    value, grads = value_and_grads(function, nothing, True, scale=1.0, softcap=0.0)
    assert value.item() == 0.0
    assert all(not grad.any() for grad in grads)


def test_without_grad_mode_the_chunked_loss_computes_no_gradient() -> None:
    hidden, weight, bias, targets = make_case()
    weight.requires_grad_()
    with torch.no_grad():
        value = chunked_cross_entropy(hidden, weight, bias, targets, scale=1.0, softcap=0.0)
    assert not value.requires_grad


@pytest.mark.parametrize("use_bias", [False, True])
def test_a_traced_graph_keeps_the_chunks_with_the_same_value_and_gradients(use_bias: bool) -> None:
    case = make_case()
    traced = torch.compile(softcapped_cross_entropy, backend="aot_eager", fullgraph=True)
    value, grads = value_and_grads(traced, case, use_bias, scale=2.0, softcap=3.0)
    expected, wanted = value_and_grads(
        chunked_cross_entropy, case, use_bias, scale=2.0, softcap=3.0
    )
    assert torch.equal(value, expected)
    assert all(torch.equal(got, want) for got, want in zip(grads, wanted, strict=True))


@pytest.mark.parametrize("wants_grad", [False, True])
def test_the_chunks_are_declared_to_the_compiler_as_they_are(wants_grad: bool) -> None:
    hidden, weight, bias, targets = make_case()
    operator = torch.ops.parbyte.chunked_nats_and_grads.default
    for bias_V in (bias, None):
        arguments = (hidden, weight, bias_V, targets, 2.0, 3.0, wants_grad)
        torch.library.opcheck(operator, arguments)


def test_a_bfloat16_head_gives_float32_logits_and_a_float32_loss() -> None:
    hidden, weight, bias, targets = make_case()
    narrow = hidden.bfloat16(), weight.bfloat16()
    assert softcapped_logits(*narrow, bias, scale=1.0, softcap=3.0).dtype == torch.float32
    value = softcapped_cross_entropy(*narrow, bias, targets, scale=1.0, softcap=3.0)
    assert value.dtype == torch.float32
    expected = reference_loss((hidden, weight, bias, targets), True, 1.0, 3.0)
    assert value.item() == pytest.approx(expected, rel=2e-2)


def test_a_target_of_vanishing_probability_keeps_its_exact_cost() -> None:
    hidden, weight, targets = torch.ones(2, 1), torch.tensor([[0.0], [300.0]]), torch.tensor([0, 1])
    value = chunked_cross_entropy(hidden, weight, None, targets, scale=1.0, softcap=0.0)
    assert value.item() == pytest.approx(150.0)
