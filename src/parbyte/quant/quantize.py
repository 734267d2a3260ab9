"""All weights of a model: which become codes on which grid, and which stay float16."""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.model.roles import Role
from parbyte.quant.config import FLOAT_BITS, QuantConfig
from parbyte.quant.gptq import Factor, gptq
from parbyte.quant.grid import Codes, dequantize, max_code
from parbyte.quant.rounding import (
    code_prices,
    frequency_factor,
    max_scale,
    round_to_nearest,
    round_with_price,
    search_scale,
    std_scale,
)

Quantized = Codes | Tensor
_TINY_MATRIX = 256
_LONG_VECTOR = 2048
# A bias of +-8 nats per token then has steps of 0.06: 2e-4 nats of loss, half of float16's bytes.
_LONG_VECTOR_BITS = 8
_LARGEST_FLOAT16 = 65504.0


def quantize_weights(
    weights: Mapping[str, Tensor],
    roles: Mapping[str, Role],
    config: QuantConfig,
    token_counts: Tensor | None = None,
    factors: Mapping[str, Factor] | None = None,
    scales: Mapping[str, Tensor] | None = None,
    step_factors: Mapping[str, float] | None = None,
) -> dict[str, Quantized]:
    """Turn float32 weights into codes by role, or float16 tensors where they are small.

    token_counts: how often each token occurs in the training text, int64[V]; with clip = "std" the
    rows of frequent tokens then get finer steps (see quant.rounding.frequency_factor).
    factors: Hessians made ready, for the matrices that are to be rounded by GPTQ.
    scales: float16[R] of the tensors whose grid is already decided.
    step_factors: with clip = "std", by how much a tensor's steps are wider than its kind's.
    Raises RecipeError if a weight is not finite: such a model has diverged in training.
    """
    quantized: dict[str, Quantized] = {}
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise RecipeError(
                f"weight '{name}' holds NaN or infinity: training diverged; "
                "lower 'train.matrix_lr' and 'train.embed_lr' and train again"
            )
        bits = bits_of(roles[name], tuple(weight.shape), config)
        if bits == FLOAT_BITS:
            clipped = weight.clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16)
            quantized[name] = clipped.to(torch.float16)
        else:
            matrix = weight.to(torch.float32)
            if scales is not None:
                scale = scales[name]
            else:
                step = 1.0 if step_factors is None else step_factors.get(name, 1.0)
                scale = choose_scale(matrix, roles[name], bits, config, token_counts, step)
            factor = None if factors is None else factors.get(name)
            quantized[name] = _round(matrix, scale, bits, factor, config.rate_weight)
    return quantized


def dequantize_weights(quantized: Mapping[str, Quantized]) -> dict[str, Tensor]:
    """Return the float32 weights that codes and float16 tensors stand for."""
    return {
        name: dequantize(item) if isinstance(item, Codes) else item.to(torch.float32)
        for name, item in quantized.items()
    }


def bits_of(role: Role, shape: tuple[int, ...], config: QuantConfig) -> int:
    """Return the bits per weight of one tensor's grid; 16 means float16."""
    if is_small(role, shape):
        return FLOAT_BITS
    if len(shape) == 1:
        return _LONG_VECTOR_BITS
    return int(getattr(config, f"bits_{role.value}"))


def is_small(role: Role, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is so small that it stays float16 whatever the recipe says.

    Vectors are, except those with an element per token of a large vocabulary.
    """
    if len(shape) == 1:
        return math.prod(shape) <= _LONG_VECTOR
    return role is Role.SCALAR or len(shape) == 0 or math.prod(shape) <= _TINY_MATRIX


def clip_std_of(role: Role, config: QuantConfig) -> float:
    """Return the k of `clip = "std"` for one role."""
    wide = role in (Role.EMBED, Role.TABLE)
    return config.clip_std_embed if wide else config.clip_std_matrix


def with_coarser_steps(config: QuantConfig, factor: float) -> QuantConfig:
    """Return the configuration whose steps are all `factor` times as wide (`clip = "std"`)."""
    return dataclasses.replace(
        config,
        clip_std_embed=config.clip_std_embed * factor,
        clip_std_matrix=config.clip_std_matrix * factor,
    )


def choose_scale(
    weight_RC: Tensor,
    role: Role,
    bits: int,
    config: QuantConfig,
    token_counts: Tensor | None = None,
    step_factor: float = 1.0,
) -> Tensor:
    """Return the float16[..., R] scales that the recipe's clip rule gives one tensor, or a stack.

    token_counts, step_factor: see quantize_weights.
    """
    digits = config.scale_digits
    if config.clip == "max" or role is Role.SCALAR:
        return max_scale(weight_RC, bits, digits)
    if config.clip == "search":
        return search_scale(weight_RC, bits, digits)
    factor_R = weight_RC.new_full(weight_RC.shape[-2:-1], step_factor)
    if token_counts is not None and role is Role.EMBED:
        assert factor_R.shape == token_counts.shape, "one count for each token of the vocabulary"
        by_count_R = frequency_factor(token_counts, config.frequency_power)
        factor_R = factor_R * by_count_R.to(factor_R.device)
    return std_scale(weight_RC, bits, digits, clip_std_of(role, config), factor_R)


def _round(
    weight_RC: Tensor, scale_R: Tensor, bits: int, factor: Factor | None, rate: float
) -> Codes:
    """Turn weights into codes on a given grid by the recipe's rule."""
    nearest = round_to_nearest(weight_RC, scale_R, bits)
    price = code_prices(nearest.codes, bits, rate) if rate else None
    if factor is not None:
        return gptq(weight_RC, scale_R, bits, factor, price)
    if price is None:
        return nearest
    steps_RC = weight_RC.double() / scale_R.double().unsqueeze(-1)
    codes_RC = round_with_price(steps_RC, max_code(bits), price).to(torch.int8)
    return Codes(codes_RC, scale_R, bits)
