"""quant.eggroll: the loss never rises, and what is kept is what was measured."""

import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.quant.calibration import Calibration, random_windows
from parbyte.quant.config import QuantConfig
from parbyte.quant.eggroll import roll
from parbyte.quant.grid import Codes
from parbyte.quant.quantize import Quantized, dequantize_weights, quantize_weights


def loss_of(config: ModelConfig, item: dict[str, Quantized], windows: Calibration) -> float:
    model = GPT(config, seed=None).eval()
    model.load_state_dict(dequantize_weights(item))
    rows = windows.windows_WT[:16]
    with torch.no_grad():
        return float(model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()))


def test_kept_changes_lower_the_loss_move_codes_by_one_and_repeat_themselves(
    model_config: ModelConfig,
) -> None:
    model = GPT(model_config, seed=0)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    bits = {f"bits_{role}": 3 for role in ("embed", "table", "attn", "mlp", "proj")}
    before = quantize_weights(
        weights,
        parameter_roles(model),
        QuantConfig(clip="max", **bits),  # type: ignore[arg-type]
    )
    windows = random_windows(257, 640, 32, seed=0)
    after, kept = roll(model_config, before, windows, trials=40)
    assert 0 < kept < 40
    assert loss_of(model_config, after, windows) < loss_of(model_config, before, windows)
    for name, item in after.items():
        old = before[name]
        if isinstance(item, Codes) and isinstance(old, Codes):
            assert int(item.codes.abs().max()) <= item.limit
            assert int((item.codes.int() - old.codes.int()).abs().max()) <= kept
    again, _ = roll(model_config, before, windows, trials=40)
    for name, item in after.items():
        other = again[name]
        if isinstance(item, Codes) and isinstance(other, Codes):
            assert torch.equal(item.codes, other.codes)
