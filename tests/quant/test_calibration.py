"""quant.calibration, quant.hessians: only training text is reachable; H is the mean of x x^T."""

from pathlib import Path

import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles
from parbyte.quant.calibration import (
    Calibration,
    TrainingText,
    generated_windows,
    random_windows,
    training_windows,
)
from parbyte.quant.hessians import collect_hessians
from parbyte.quant.sensitivity import step_factors


def trained_like(model_config: ModelConfig) -> GPT:
    model = GPT(model_config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_windows_of_training_never_show_a_letter_of_the_heldout_text(data_folder: Path) -> None:
    windows = training_windows(TrainingText(data_folder), 10**6, 32).windows_WT
    assert windows.numel() > 5_000
    assert not bool(torch.isin(windows, torch.tensor(list(b"ZEBRQUI!"))).any())


def test_a_calibration_of_other_tokens_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="only this file"):
        Calibration(torch.zeros(1, 8, dtype=torch.int64), "held-out text", object())


def test_generated_windows_repeat_for_a_seed_and_follow_the_model(
    model_config: ModelConfig,
) -> None:
    model = trained_like(model_config)
    first, again, other = (generated_windows(model, 256, 32, seed).windows_WT for seed in (0, 0, 1))
    assert first.shape == (8, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = random_windows(257, 256, 32, 0).windows_WT
    losses = [model(w[:, :-1].contiguous(), w[:, 1:].contiguous()).item() for w in (first, noise)]
    assert losses[0] < losses[1] - 0.3


def test_every_matrix_that_multiplies_has_a_hessian(
    data_folder: Path, model_config: ModelConfig
) -> None:
    model = trained_like(model_config)
    windows = training_windows(TrainingText(data_folder), 2_000, 32)
    hessians = collect_hessians(model, windows)
    roles, shapes = parameter_roles(model), {n: p.shape for n, p in model.named_parameters()}
    expected = {n for n, role in roles.items() if role in (Role.ATTN, Role.MLP, Role.PROJ)}
    assert set(hessians) == expected | {"embed.table"}
    for name, hessian in hessians.items():
        columns = shapes[name][1]
        assert hessian.shape == (columns, columns)
        assert float(torch.linalg.eigvalsh(hessian).min()) > -1e-6
        assert float(hessian.diagonal().mean()) > 0


def test_hessians_are_the_mean_square_of_the_inputs(
    data_folder: Path, model_config: ModelConfig
) -> None:
    model = trained_like(model_config)
    windows = training_windows(TrainingText(data_folder), 2_000, 32)
    hessians = collect_hessians(model, windows)
    with torch.no_grad():
        hidden = model.hidden(windows.windows_WT).flatten(0, 1).double()
    expected = hidden.T @ hidden / len(hidden)
    torch.testing.assert_close(hessians["embed.table"], expected, rtol=1e-4, atol=1e-5)
    # The inputs of q, k and v are normed: the trace is their number.
    assert float(hessians["blocks.1.attn.q"].trace()) == pytest.approx(32, rel=1e-3)
    assert torch.equal(hessians["blocks.1.attn.q"], hessians["blocks.1.attn.v"])


def test_watching_changes_nothing_and_ends(data_folder: Path, model_config: ModelConfig) -> None:
    model = trained_like(model_config)
    windows = training_windows(TrainingText(data_folder), 500, 32)
    with torch.no_grad():
        before = model.hidden(windows.windows_WT)
        collect_hessians(model, windows)
        assert torch.equal(model.hidden(windows.windows_WT), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_tensor_whose_errors_cost_more_gets_finer_steps(
    data_folder: Path, model_config: ModelConfig
) -> None:
    model = trained_like(model_config)
    windows = training_windows(TrainingText(data_folder), 2_000, 32)
    before = step_factors(model, windows)
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp_scale").mul_(4.0)
    after = step_factors(model, windows)
    assert after["blocks.1.mlp.down"] < 0.8 * before["blocks.1.mlp.down"]
    assert all(0.25 <= factor <= 4.0 for factor in after.values())
