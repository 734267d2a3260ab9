"""quant.heal: training through the grid lowers the loss of what is packed, and repeats itself."""

from pathlib import Path

import pytest
import torch

from parbyte.base.errors import RecipeError
from parbyte.base.log import Console
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import role_of
from parbyte.quant.calibration import TrainingText, training_windows
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes
from parbyte.quant.heal import Batches, Healed, heal
from parbyte.quant.quantize import Knowledge, dequantize_weights, quantize_weights

BATCHES = Batches(batch_tokens=256, seq_len=32, seed=0)
QUIET = Console(quiet=True)
COARSE = {"clip_std_embed": 150.0, "clip_std_matrix": 150.0}


def run(
    model_config: ModelConfig, data_folder: Path, config: QuantConfig, console: Console = QUIET
) -> tuple[Healed, dict[str, Codes | torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: p.detach() + 0.1 * torch.randn(p.shape, generator=generator)
        for name, p in GPT(model_config, seed=0).named_parameters()
    }
    quantized = quantize_weights(weights, {name: role_of(name) for name in weights}, config)
    text = TrainingText(data_folder)
    return heal(model_config, weights, quantized, text, BATCHES, config, console), quantized


def loss_of(
    model_config: ModelConfig, data_folder: Path, weights: dict[str, torch.Tensor]
) -> float:
    model = GPT(model_config, seed=None)
    model.load_state_dict(weights)
    windows = training_windows(TrainingText(data_folder), 4_000, 33).windows_WT
    with torch.no_grad():
        return model(windows[:, :-1].contiguous(), windows[:, 1:].contiguous()).item()


def test_packed_weights_get_better_while_their_grids_stay(
    model_config: ModelConfig, data_folder: Path
) -> None:
    config = QuantConfig(heal_steps=40, heal_lr=1e-2, heal_from="text", **COARSE)
    healed, quantized = run(model_config, data_folder, config)
    roles = {name: role_of(name) for name in quantized}
    scales = {n: item.scale for n, item in quantized.items() if isinstance(item, Codes)}
    packed = quantize_weights(healed.weights, roles, config, Knowledge(scales=scales))
    for name, scale in scales.items():
        item = packed[name]
        assert isinstance(item, Codes) and torch.equal(item.scale, scale)
    losses = [
        loss_of(model_config, data_folder, dequantize_weights(item)) for item in (quantized, packed)
    ]
    assert losses[1] < losses[0] - 0.5
    assert healed.last_loss < healed.first_loss
    assert 0.0 < healed.moved < 1.0


def test_packed_weights_come_nearer_to_the_float_model(
    model_config: ModelConfig, data_folder: Path
) -> None:
    config = QuantConfig(heal_steps=20, heal_lr=3e-3, heal_from="model", **COARSE)
    healed, _ = run(model_config, data_folder, config)
    assert 0.0 < healed.last_loss < 0.95 * healed.first_loss


def test_equal_steps_give_equal_weights(model_config: ModelConfig, data_folder: Path) -> None:
    config = QuantConfig(heal_steps=3, **COARSE)
    first, again = (run(model_config, data_folder, config)[0].weights for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_it_begins_at_the_codes_it_was_given(model_config: ModelConfig, data_folder: Path) -> None:
    config = QuantConfig(heal_steps=1, heal_lr=1e-9, **COARSE)
    healed, _ = run(model_config, data_folder, config)
    assert healed.moved < 1e-3


def test_the_clock_ends_it_and_the_log_shows_that_it_engaged(
    model_config: ModelConfig, data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = QuantConfig(heal_seconds=0.5, heal_lr=1e-3, **COARSE)
    healed, _ = run(model_config, data_folder, config, Console())
    assert healed.seconds < 5  # a step on a busy machine may take long
    assert healed.steps >= 1
    assert f"healed {healed.steps:,} steps" in capfd.readouterr().err


def test_too_little_time_for_a_step_is_refused(
    model_config: ModelConfig, data_folder: Path
) -> None:
    with pytest.raises(RecipeError, match=r"made no step: raise 'quant.heal_seconds'"):
        run(model_config, data_folder, QuantConfig(heal_seconds=1e-9))


def test_steps_and_seconds_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match=r"heal_seconds"):
        QuantConfig(heal_steps=4, heal_seconds=1.0)
