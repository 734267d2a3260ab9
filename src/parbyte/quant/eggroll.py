"""Random changes of a few codes, kept where the model's own loss falls.

Each trial moves some codes of one tensor by one, up or down, and runs the model on calibration
text. Source: the EGGROLL step of openai/parameter-golf PR 1430, there on self-generated text.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.quant.calibration import Calibration
from parbyte.quant.grid import Codes, dequantize, limits_of
from parbyte.quant.quantize import Quantized, dequantize_weights

_CODES_AT_ONCE = 32
_WINDOWS = 16
_SEED = 4099


@torch.no_grad()
def roll(
    model_config: ModelConfig,
    quantized: Mapping[str, Quantized],
    calibration: Calibration,
    trials: int,
) -> tuple[dict[str, Quantized], int]:
    """Return the weights after `trials` trials, and how many of them were kept.

    A tensor is drawn in proportion to its number of codes. The loss on the calibration's first 16
    windows never rises.
    """
    generator = torch.Generator().manual_seed(_SEED)
    model = GPT(model_config, seed=None).eval()
    model.load_state_dict(dequantize_weights(quantized))
    parameters = dict(model.named_parameters())
    windows_WT = calibration.windows_WT[:_WINDOWS]
    inputs, targets = windows_WT[:, :-1].contiguous(), windows_WT[:, 1:].contiguous()
    rolled, kept = dict(quantized), 0
    coded = [name for name, item in quantized.items() if isinstance(item, Codes)]
    sizes = torch.tensor([float(parameters[name].numel()) for name in coded])
    least = float(model(inputs, targets))
    for _ in range(trials):
        name = coded[int(torch.multinomial(sizes, 1, generator=generator))]
        item = rolled[name]
        assert isinstance(item, Codes), "only codes are drawn"
        changed = _changed(item, generator)
        parameters[name].copy_(dequantize(changed))
        loss = float(model(inputs, targets))
        if loss < least:
            least, kept, rolled[name] = loss, kept + 1, changed
        else:
            parameters[name].copy_(dequantize(item))
    return rolled, kept


def _changed(item: Codes, generator: torch.Generator) -> Codes:
    """Return the codes with up to 32 of them moved by one, within their limits."""
    codes = item.codes.clone()
    place = torch.randint(codes.numel(), (_CODES_AT_ONCE,), generator=generator).unique()
    step = 2 * torch.randint(2, place.shape, generator=generator) - 1
    limit = limits_of(item).to(torch.int64)[place % codes.shape[-1]]
    moved = codes.view(-1)[place].long() + step
    codes.view(-1)[place] = torch.minimum(torch.maximum(moved, -limit), limit).to(torch.int8)
    return replace(item, codes=codes)
