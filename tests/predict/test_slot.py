"""SLOT's shift is the minimiser of a loss over the context alone, lane by lane."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from toys import BOS, STRIDE, WINDOW, exact_copy, inputs_of, rows, text, toy_model

from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import SlotConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.slot import SlotPredictor

CONTEXT = WINDOW - STRIDE
MODEL = toy_model(softcap=10.0, logit_bias=True)


def slot(settings: SlotConfig, model: GPT = MODEL) -> SlotPredictor:
    return SlotPredictor(model, settings, window=WINDOW, stride=STRIDE)


def context_loss(model: GPT, context: Tensor, labels: Tensor, settings: SlotConfig, x: Tensor):
    """Return the loss of one lane at x = delta and bias, in float64; labels are the last ones."""
    width = model.config.model_dim
    hidden = model.hidden(context[None])[0, -len(labels) :].detach()
    logits = model.logits(hidden + x[:width]) + x[width:]
    nats = -logits.log_softmax(-1).gather(1, labels[:, None]).mean()
    return nats + 0.5 * settings.ridge * x.square().sum()


@pytest.mark.parametrize("fit", ["hidden", "bias", "both"])
@pytest.mark.parametrize("focal", [0, 5])
def test_lbfgs_finds_the_minimum_that_scipy_finds(fit: str, focal: int) -> None:
    settings = SlotConfig(fit=fit, optimizer="lbfgs", steps=300, ridge=0.05, focal=focal)
    predictor, tokens_BN = slot(settings), text(2, WINDOW)
    for chunk_BT in tokens_BN.split(STRIDE, dim=1):
        predictor.observe(chunk_BT)
    exact, inputs_BN = exact_copy(MODEL), inputs_of(tokens_BN)
    width, vocab = exact.config.model_dim, exact.config.vocab_size
    is_free = np.repeat([fit != "bias", fit != "hidden"], [width, vocab])
    for lane in range(2):
        context = torch.cat([inputs_BN[lane], tokens_BN[lane, -1:]])[-CONTEXT - 1 :]
        context, labels = context[:-1], context[1:][-(focal or CONTEXT) :]

        def value(free: np.ndarray) -> tuple[float, np.ndarray]:
            x = np.zeros(width + vocab)
            x[is_free] = free
            point = torch.from_numpy(x).requires_grad_(True)
            loss = context_loss(exact, context, labels, settings, point)  # noqa: B023
            (grad,) = torch.autograd.grad(loss, point)
            return float(loss.detach()), grad.numpy()[is_free]

        best = minimize(value, np.zeros(is_free.sum()), jac=True, method="L-BFGS-B", tol=1e-12)
        assert predictor._shift is not None
        got = torch.cat([part[lane, 0] for part in predictor._shift]).double().numpy()
        assert np.abs(got[~is_free]).max(initial=0.0) == 0.0
        assert abs(value(got[is_free])[0] - best.fun) < 1e-5
        np.testing.assert_allclose(got[is_free], best.x, atol=5e-3)


@pytest.mark.parametrize("warm", [False, True])
def test_adam_takes_the_steps_of_a_float64_reference(warm: bool) -> None:
    settings = SlotConfig(fit="both", steps=5, lr=0.05, warm=warm, clamp=0.12, ridge=0.01)
    predictor, tokens_BN = slot(settings), text(1, 3 * STRIDE)
    exact, inputs_N = exact_copy(MODEL), inputs_of(tokens_BN)[0]
    size = exact.config.model_dim + exact.config.vocab_size
    x = torch.zeros(size, dtype=torch.float64)
    for stop in (STRIDE, 2 * STRIDE, 3 * STRIDE):
        predictor.observe(tokens_BN[:, stop - STRIDE : stop])
        left = max(0, stop - CONTEXT)
        x = x if warm else torch.zeros_like(x)
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(1, settings.steps + 1):
            point = x.clone().requires_grad_(True)
            loss = context_loss(
                exact, inputs_N[left:stop], tokens_BN[0, left:stop], settings, point
            )
            (grad,) = torch.autograd.grad(loss, point)
            first = settings.beta1 * first + (1 - settings.beta1) * grad
            second = settings.beta2 * second + (1 - settings.beta2) * grad**2
            mean, square = first / (1 - settings.beta1**step), second / (1 - settings.beta2**step)
            x = x - settings.lr * mean / (square.sqrt() + settings.eps)
        x = x.clamp(-settings.clamp, settings.clamp)
        assert predictor._shift is not None
        got = torch.cat([part[0, 0] for part in predictor._shift])
        torch.testing.assert_close(got.double(), x, atol=2e-3, rtol=0)
    assert x.abs().max() == settings.clamp


def test_rows_are_the_networks_with_shifted_states_and_logits() -> None:
    predictor = slot(SlotConfig(fit="both", steps=4, lr=0.1))
    tokens_BN = text(2, 2 * STRIDE)
    predictor.observe(tokens_BN[:, :STRIDE])
    assert predictor._shift is not None
    delta, bias = predictor._shift
    assert delta.abs().max() > 0.1 and bias.abs().max() > 0.1
    hidden = MODEL.hidden(inputs_of(tokens_BN))[:, STRIDE:]
    expected = (MODEL.logits(hidden + delta) + bias).log_softmax(-1)
    torch.testing.assert_close(
        predictor.log_probs(tokens_BN[:, STRIDE:]), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_lanes_together_are_lanes_alone(optimizer: str) -> None:
    settings = SlotConfig(fit="both", optimizer=optimizer, steps=6, ridge=0.1, warm=True)
    tokens_BN = text(3, 4 * STRIDE)
    tokens_BN[2, 6:] = BOS  # an ended lane
    together = rows(slot(settings), tokens_BN)
    alone = torch.cat([rows(slot(settings), lane_N[None]) for lane_N in tokens_BN])
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=0)


def test_the_first_chunk_has_no_context_and_no_shift() -> None:
    tokens_BN = text(2, 2 * STRIDE)
    plain = rows(NeuralPredictor(MODEL, window=WINDOW, stride=STRIDE), tokens_BN)
    shifted = rows(slot(SlotConfig(lr=0.1)), tokens_BN)
    assert torch.equal(plain[:, :STRIDE], shifted[:, :STRIDE])
    assert not torch.allclose(plain[:, STRIDE:], shifted[:, STRIDE:], atol=1e-2)


def test_separate_windows_leave_nothing_to_fit() -> None:
    tokens_BN = text(2, 3 * STRIDE)
    plain = rows(NeuralPredictor(MODEL, window=STRIDE, stride=STRIDE), tokens_BN)
    shifted = SlotPredictor(MODEL, SlotConfig(lr=0.1), window=STRIDE, stride=STRIDE)
    assert torch.equal(rows(shifted, tokens_BN), plain)


def test_a_token_of_the_chunk_moves_no_row_up_to_it() -> None:
    predictor = slot(SlotConfig(fit="both", lr=0.1, steps=3, warm=True))
    tokens_BN = text(2, 4 * STRIDE)
    for flipped in (2 * STRIDE - 1, 2 * STRIDE, 3 * STRIDE + 1):
        other_BN = tokens_BN.clone()
        other_BN[:, flipped] = tokens_BN[:, flipped] % 15 + 1
        before, after = rows(predictor, tokens_BN), rows(predictor, other_BN)
        assert torch.equal(before[:, : flipped + 1], after[:, : flipped + 1])
        assert not torch.equal(before[:, flipped + 1 :], after[:, flipped + 1 :])
