"""Weights as the artifact will hold them, for a training that looks at them (`train.qat`).

The grid is the packer's own: the same bits, clip rule and scales, chosen anew from the weights of
every step. Same-shaped matrices of one role are handled as one stack.
Shapes: N matrices, R rows, C columns.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles
from parbyte.quant.config import FLOAT_BITS, QuantConfig
from parbyte.quant.grid import dequantize, max_code
from parbyte.quant.quantize import bits_of
from parbyte.quant.rounding import round_to_nearest
from parbyte.quant.scales import choose_scale, row_factor
from parbyte.text.shards import count_tokens
from parbyte.train.rounding import Rounding, Seen

_FIRST_SHARPNESS, _LAST_SHARPNESS = 1.0, 16.0


def packer_rounding(shape: ModelConfig, config: QuantConfig, data_folder: Path) -> Rounding:
    """Return how the pack stage will round the weights of a model trained on prepared data."""
    counts = None
    # Counting reads the whole training text, and only this rule asks for it.
    if config.clip == "std":
        counts = torch.from_numpy(count_tokens(data_folder, "train", shape.vocab_size))
    return rounding_on_grid(parameter_roles(GPT(shape, seed=None)), config, counts)


def rounding_on_grid(
    roles: Mapping[str, Role], config: QuantConfig, token_counts: Tensor | None
) -> Rounding:
    """Return a rounding of weights of these roles; token_counts: as for `quantize_weights`."""

    def see(weights: Mapping[str, Tensor], kind: str, hardness: float) -> dict[str, Seen]:
        seen: dict[str, Seen] = {}
        for (role, shape), names in _alike(weights, roles).items():
            bits = bits_of(role, shape, config)
            if bits == FLOAT_BITS:
                continue
            stack_NRC = torch.stack([weights[name] for name in names])
            counts = token_counts if role is Role.EMBED else None
            factor_R = row_factor(stack_NRC[0], config, counts, None, 1.0)
            factor_NR = None if factor_R is None else factor_R.to(stack_NRC.device)[None]
            scale_NR = choose_scale(stack_NRC, role, bits, config, factor_NR)
            value_NRC, slope_NRC = _look(stack_NRC, scale_NR, bits, kind, hardness)
            for place, name in enumerate(names):
                slope = None if slope_NRC is None else slope_NRC[place]
                seen[name] = Seen(value_NRC[place], slope)
        if not seen:
            raise RecipeError(
                "'train.qat' has nothing to round: every weight stays float16; lower "
                "'quant.bits_mlp' and the like, or set 'train.qat' to 'off'"
            )
        return seen

    return Rounding(see=see, settings=config.grid_settings)


def soft_round(
    weight_NRC: Tensor, scale_NR: Tensor, bits: int, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Return weights drawn towards their codes, and the derivative by the weight.

    With y = weight / scale and r its distance from the middle between two codes:
    middle + tanh(a r) / (2 tanh(a / 2)), the identity for a -> 0 and rounding for a -> infinity.
    What lies outside the grid is clipped, with derivative 0.
    Source: Agustsson and Theis 2020, arXiv:2006.09952; openai/parameter-golf PRs 589 and 606.
    """
    scale_NR1, limit = scale_NR.to(torch.float32).unsqueeze(-1), max_code(bits)
    steps_NRC = weight_NRC / scale_NR1
    middle_NRC = steps_NRC.floor() + 0.5
    bend_NRC = torch.tanh(sharpness * (steps_NRC - middle_NRC))
    height = 2.0 * math.tanh(sharpness / 2.0)
    soft_NRC = (middle_NRC + bend_NRC / height).clamp(-limit, limit)
    slope_NRC = (1.0 - bend_NRC.square()) * (sharpness / height)
    return soft_NRC * scale_NR1, slope_NRC * (steps_NRC.abs() <= limit)


def with_noise(weight_NRC: Tensor, scale_NR: Tensor, bits: int) -> Tensor:
    """Return clipped weights plus uniform noise of one step's width, from torch's generator.

    Source: Balle, Laparra and Simoncelli 2017, arXiv:1611.01704; openai/parameter-golf PR 363.
    """
    scale_NR1, limit = scale_NR.to(torch.float32).unsqueeze(-1), max_code(bits)
    noise_NRC = torch.rand_like(weight_NRC) - 0.5
    return ((weight_NRC / scale_NR1).clamp(-limit, limit) + noise_NRC) * scale_NR1


def _look(
    stack_NRC: Tensor, scale_NR: Tensor, bits: int, kind: str, hardness: float
) -> tuple[Tensor, Tensor | None]:
    if kind == "soft":
        sharpness = _FIRST_SHARPNESS + hardness * (_LAST_SHARPNESS - _FIRST_SHARPNESS)
        return soft_round(stack_NRC, scale_NR, bits, sharpness)
    if kind == "noise":
        return with_noise(stack_NRC, scale_NR, bits), None
    assert kind == "straight"
    return dequantize(round_to_nearest(stack_NRC, scale_NR, bits)), None


def _alike(
    weights: Mapping[str, Tensor], roles: Mapping[str, Role]
) -> dict[tuple[Role, tuple[int, ...]], list[str]]:
    groups: dict[tuple[Role, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, weight in weights.items():
        groups[roles[name], tuple(weight.shape)].append(name)
    return groups
