"""SLOT claims against slow float64 references written from their descriptions, window by window."""

import math

import pytest
import torch
from torch import Tensor, nn

from parbyte.claims.logit_slot import CASCADE, LogitSlot, logit_slot
from parbyte.claims.slot import (
    SampleSlot,
    SharedSlot,
    per_sample_slot,
    shared_context_slot,
    standard_slot,
)
from parbyte.claims.windows import Windows

L, S, B = 16, 4, 5
WINDOWS = Windows(window=L, stride=S, batch=B)
EXACT = 1e-6


def reference_windows(stream: Tensor) -> list[tuple[int, int, int]]:
    """Return (start, length, first scored column) of every window, the short ones too."""
    found = []
    for start in range(0, len(stream) - 1, S):
        length = min(L, len(stream) - 1 - start)
        found.append((start, length, 0 if start == 0 else max(length - S, 0)))
    return found


def padded(stream: Tensor, start: int, length: int) -> tuple[Tensor, Tensor]:
    inputs, answers = torch.zeros(L, dtype=torch.long), torch.zeros(L, dtype=torch.long)
    inputs[:length] = stream[start : start + length]
    answers[:length] = stream[start + 1 : start + length + 1]
    return inputs, answers


def adamw(parameters: list[Tensor], grads: list[Tensor], state: dict, lr: float, s: object) -> None:
    """One AdamW step, in its formula: m, v, their corrections, decay decoupled."""
    state["k"] = state.get("k", 0) + 1
    for place, (p, g) in enumerate(zip(parameters, grads, strict=True)):
        m, v = state.get(("m", place), 0.0), state.get(("v", place), 0.0)
        m = s.beta1 * m + (1 - s.beta1) * g  # type: ignore[attr-defined]
        v = s.beta2 * v + (1 - s.beta2) * g * g  # type: ignore[attr-defined]
        state["m", place], state["v", place] = m, v
        m_hat = m / (1 - s.beta1 ** state["k"])  # type: ignore[attr-defined]
        v_hat = v / (1 - s.beta2 ** state["k"])  # type: ignore[attr-defined]
        with torch.no_grad():
            p *= 1 - lr * s.weight_decay  # type: ignore[attr-defined]
            p -= lr * m_hat / (v_hat.sqrt() + s.eps)  # type: ignore[attr-defined]


def nats(logits: Tensor, answer: Tensor) -> Tensor:
    return logits.logsumexp(-1) - logits[answer]


def reference_per_sample(net: nn.Module, stream: Tensor, s: SampleSlot) -> list[float]:
    out: list[float] = []
    geometry = reference_windows(stream)
    for first in range(0, len(geometry), B):
        group = geometry[first : first + B]
        texts = [padded(stream, start, length) for start, length, _ in group]
        hidden = [net.hidden(x[None])[0].detach() for x, _ in texts]
        delta = [torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in group]
        bias = [torch.zeros(11, dtype=torch.float64, requires_grad=True) for _ in group]
        places = [(i, j) for i, (_, n, a) in enumerate(group) for j in range(a, n) if j < L - 1]
        state: dict = {}
        for k in range(s.steps):
            lr = s.min_lr + (s.lr - s.min_lr) * (1 + math.cos(math.pi * k / (s.steps - 1))) / 2
            terms = [
                nats(net.logits(hidden[i][j] + delta[i]) + bias[i], texts[i][1][j])
                for i, j in places
            ]
            loss = torch.stack(terms).sum() / len(places)
            grads = torch.autograd.grad(loss, delta + bias)
            adamw(delta + bias, list(grads), state, lr, s)
        for i, (_, length, a) in enumerate(group):
            for j in range(a, length):
                logits = net.logits(hidden[i][j] + delta[i]) + bias[i]
                out.append(float(nats(logits, texts[i][1][j]).detach()))
    return out


def test_per_sample_slot_equals_its_description(net: nn.Module, stream: Tensor) -> None:
    settings = SampleSlot()
    found = per_sample_slot(net, stream, WINDOWS, settings)
    expected = reference_per_sample(net, stream, settings)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=EXACT)


def test_the_published_schedule_goes_from_0432_to_0001_in_24_steps() -> None:
    rates = [SampleSlot().lr_at(k) for k in range(SampleSlot().steps)]
    assert len(rates) == 24 and rates[0] == 0.432 and rates[-1] == pytest.approx(0.001, abs=1e-15)


def test_a_full_windows_last_column_is_not_in_the_objective(net: nn.Module, stream: Tensor) -> None:
    windows = Windows(window=L, stride=S, batch=1, repeats_tail=False)
    last = windows.window  # the last position that the first window scores
    other = stream.clone()
    other[last] = (other[last] + 1) % 11
    one = per_sample_slot(net, stream[: last + 1], windows, SampleSlot()).nats_M
    two = per_sample_slot(net, other[: last + 1], windows, SampleSlot()).nats_M
    assert torch.equal(one[:-1], two[:-1]) and one[-1] != two[-1]
    other = stream.clone()
    other[last - 1] = (other[last - 1] + 1) % 11
    two = per_sample_slot(net, other[: last + 1], windows, SampleSlot()).nats_M
    assert bool((one[:-2] != two[:-2]).all())


def test_bfloat16_rounds_what_autocast_rounds(net: nn.Module, stream: Tensor) -> None:
    exact = per_sample_slot(net, stream, WINDOWS, SampleSlot()).nats_M
    rounded = per_sample_slot(net.bfloat16(), stream, WINDOWS, SampleSlot(bfloat16=True)).nats_M
    assert rounded.dtype == torch.float64
    assert 1e-4 < float((exact - rounded).abs().mean()) < 0.2


def reference_shared(
    net: nn.Module, stream: Tensor, s: SharedSlot, reads_context_only: bool
) -> list[float]:
    out: list[float] = []
    geometry = reference_windows(stream)
    for first in range(0, len(geometry), B):
        group = geometry[first : first + B]
        texts = [padded(stream, start, length) for start, length, _ in group]
        hidden = [net.hidden(x[None])[0].detach() for x, _ in texts]
        delta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        state: dict = {}
        places = [
            (i, j)
            for i, (_, _, a) in enumerate(group)
            for j in range(L)
            if (j < a if reads_context_only else j < L - 1)
        ]
        for _ in range(s.steps if places else 0):
            terms = [nats(net.logits(hidden[i][j] + delta), texts[i][1][j]) for i, j in places]
            loss = torch.stack(terms).mean()
            adamw([delta], list(torch.autograd.grad(loss, [delta])), state, s.lr, s)
        for i, (_, length, a) in enumerate(group):
            for j in range(a, length):
                out.append(float(nats(net.logits(hidden[i][j] + delta), texts[i][1][j]).detach()))
    return out


@pytest.mark.parametrize("reads_context_only", [False, True])
def test_slot_with_one_vector_equals_its_description(
    net: nn.Module, stream: Tensor, reads_context_only: bool
) -> None:
    claim = shared_context_slot if reads_context_only else standard_slot
    settings = SharedSlot(lr=0.05)
    found = claim(net, stream, WINDOWS, settings)
    expected = reference_shared(net, stream, settings, reads_context_only)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=EXACT)


def reference_logit_slot(
    net: nn.Module, stream: Tensor, phases: list[tuple[int, int]], focal: int
) -> list[float]:
    out: list[float] = []
    carried = torch.zeros(11, dtype=torch.float64)
    geometry = reference_windows(stream)
    for first in range(0, len(geometry), B):
        group = geometry[first : first + B]
        texts = [padded(stream, start, length) for start, length, _ in group]
        base = [net.logits(net.hidden(x[None])[0]).detach() for x, _ in texts]
        places = [(i, j) for i, (_, _, a) in enumerate(group) for j in range(L - focal, a)]
        delta = carried.clone().requires_grad_()
        for iterations, history in phases if places else []:
            optimizer = torch.optim.LBFGS(
                [delta],
                lr=1,
                max_iter=iterations,
                history_size=history,
                line_search_fn="strong_wolfe",
                tolerance_change=1e-9,
                tolerance_grad=1e-7,
            )

            def closure(optimizer=optimizer, delta=delta, base=base, texts=texts, places=places):
                optimizer.zero_grad()
                terms = [nats(base[i][j] + delta, texts[i][1][j]) for i, j in places]
                loss = torch.stack(terms).mean()
                loss.backward()
                return loss

            optimizer.step(closure)
        carried = delta.detach().clamp(-5, 5)
        for i, (_, length, a) in enumerate(group):
            for j in range(a, length):
                out.append(float(nats(base[i][j] + carried, texts[i][1][j])))
    return out


@pytest.mark.parametrize(
    "settings", [LogitSlot(focal=2 * S), LogitSlot(phases=CASCADE.phases, focal=9)]
)
def test_slot_in_logit_space_equals_its_description(
    net: nn.Module, stream: Tensor, settings: LogitSlot
) -> None:
    found = logit_slot(net, stream, WINDOWS, settings)
    expected = reference_logit_slot(net, stream, list(settings.phases), settings.focal)
    assert found.nats_M.tolist() == pytest.approx(expected, abs=EXACT)


def test_a_windows_fitted_slice_is_the_scored_slice_of_the_one_before() -> None:
    windows = Windows(window=L, stride=S, batch=B, repeats_tail=False)
    (batch, *_) = list(windows.batches(torch.arange(200)))[1:]
    scored = {int(p) for p in batch.positions_M}
    fitted = {int(s) + j + 1 for s in batch.starts_B for j in range(L - 2 * S, L - S)}
    assert len(fitted & scored) == (B - 1) * S


def test_fitting_the_scored_slice_too_is_lower_still(net: nn.Module, stream: Tensor) -> None:
    context = logit_slot(net, stream, WINDOWS, LogitSlot(focal=2 * S)).nats_M.sum()
    peeking = logit_slot(net, stream, WINDOWS, LogitSlot(focal=2 * S, reads_scored=True))
    assert peeking.nats_M.sum() < context
