"""All weights of a model: which become codes on which grid, and which stay float16."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.model.roles import Role
from parbyte.quant.codebook import train_book
from parbyte.quant.config import FLOAT_BITS, QuantConfig
from parbyte.quant.gptq import Factor, gptq
from parbyte.quant.grid import Codes, Fine, dequantize, limits_of, points_of, steps_of
from parbyte.quant.repair import add_low_rank, add_sparse
from parbyte.quant.rounding import code_prices, refit_scale, snap
from parbyte.quant.scales import choose_scale, row_factor

Quantized = Codes | Tensor
_TINY_MATRIX = 256
_LONG_VECTOR = 2048
# A bias of +-8 nats per token then has steps of 0.06: 2e-4 nats of loss, half of float16's bytes.
_LONG_VECTOR_BITS = 8
_LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What is known of a model besides its weights and settings; all of it may be missing."""

    token_counts: Tensor | None = None
    """How often each token occurs in the training text, int64[V]; with clip = "std" the rows of
    frequent tokens then get finer steps (see quant.rounding.frequency_factor)."""
    factors: Mapping[str, Factor] = field(default_factory=dict)
    """Hessians made ready, of the matrices that activations are multiplied with."""
    step_factors: Mapping[str, float] = field(default_factory=dict)
    """With clip = "std", by how much a tensor's steps are wider than its kind's."""
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """float16[R] of the tensors whose grid is already decided."""


def quantize_weights(
    weights: Mapping[str, Tensor],
    roles: Mapping[str, Role],
    config: QuantConfig,
    knowledge: Knowledge | None = None,
) -> dict[str, Quantized]:
    """Turn float32 weights into codes by role, or float16 tensors where they are small.

    Raises RecipeError if a weight is not finite: such a model has diverged in training; or if a
    matrix's columns cannot be grouped as the recipe says.
    """
    check_columns(weights, roles, config)
    known = knowledge or Knowledge()
    quantized: dict[str, Quantized] = {}
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise RecipeError(
                f"weight '{name}' holds NaN or infinity: training diverged; "
                "lower 'train.matrix_lr' and 'train.embed_lr' and train again"
            )
        if bits_of(roles[name], tuple(weight.shape), config) == FLOAT_BITS:
            clipped = weight.clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16)
            quantized[name] = clipped.to(torch.float16)
        else:
            quantized[name] = _codes(name, weight.to(torch.float32), roles[name], config, known)
    codes = {name: item for name, item in quantized.items() if isinstance(item, Codes)}
    inputs = {name: f.hessian_CC.diagonal() for name, f in known.factors.items()}
    if config.lqer_rank:
        codes = add_low_rank(weights, codes, inputs, config)
    if config.sparse_share:
        codes = add_sparse(weights, codes, inputs, config.sparse_share)
    return {**quantized, **codes}


def check_columns(
    weights: Mapping[str, Tensor], roles: Mapping[str, Role], config: QuantConfig
) -> None:
    """Raise RecipeError where a matrix's columns cannot be taken together as the recipe says."""
    for name, weight in weights.items():
        if weight.ndim < 2 or bits_of(roles[name], tuple(weight.shape), config) == FLOAT_BITS:
            continue
        for key, width in (("group", config.group or 1), ("grid", config.grid_width)):
            if weight.shape[-1] % width:
                raise RecipeError(
                    f"'quant.{key}' takes {width} columns together, and '{name}' has "
                    f"{weight.shape[-1]}: choose a divisor"
                )


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
    return _LONG_VECTOR_BITS if len(shape) == 1 else config.bits(role.value)


def is_small(role: Role, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is so small that it stays float16 whatever the recipe says.

    Vectors are, except those with an element per token of a large vocabulary.
    """
    if len(shape) == 1:
        return math.prod(shape) <= _LONG_VECTOR
    return role is Role.SCALAR or len(shape) == 0 or math.prod(shape) <= _TINY_MATRIX


def in_groups(weight: Tensor, config: QuantConfig) -> Tensor:
    """Return the weights with a row for each scale: [..., R, G, C / G] in groups of columns."""
    if weight.ndim < 2 or config.group == 0:
        return weight
    return weight.unflatten(-1, (-1, config.group))


def with_coarser_steps(config: QuantConfig, factor: float) -> QuantConfig:
    """Return the configuration whose steps are all `factor` times as wide (`clip = "std"`)."""
    kinds = ("embed", "matrix", "table", "attn", "mlp", "proj")
    keys = [f"clip_std_{kind}" for kind in kinds]
    return dataclasses.replace(config, **{key: getattr(config, key) * factor for key in keys})


def _codes(name: str, weight: Tensor, role: Role, config: QuantConfig, known: Knowledge) -> Codes:
    """Choose one tensor's steps and grid, and round it by the recipe's rule."""
    is_matrix = weight.ndim > 1
    factor = known.factors.get(name) if is_matrix else None
    bits = bits_of(role, tuple(weight.shape), config)
    scale = known.scales.get(name)
    if scale is None:
        counts = known.token_counts if role is Role.EMBED else None
        wider = known.step_factors.get(name, 1.0)
        factor_R = row_factor(weight, config, counts, factor, wider)
        scale = choose_scale(in_groups(weight, config), role, bits, config, factor_R)
    like = Codes(torch.empty(weight.shape, dtype=torch.int8), scale, bits)
    if is_matrix:
        like = _on_grid(like, weight, config, factor)
    steps = weight / steps_of(like)
    limit = limits_of(like)
    nearest = dataclasses.replace(like, codes=snap(steps, like, limit).to(torch.int8))
    rounded = _choose_codes(weight, nearest, config, factor)
    return _refit(weight, rounded, config, factor) if config.refit_scales else rounded


def _on_grid(like: Codes, weight: Tensor, config: QuantConfig, factor: Factor | None) -> Codes:
    """Return empty codes of a matrix's own grid, trained where it is a table."""
    if config.awq_columns and factor is not None:
        return dataclasses.replace(like, fine=_fine_columns(weight, factor, config))
    if config.grid == "codebook":
        vectors = (weight / steps_of(like)).reshape(-1, config.codebook_dim)
        book = train_book(vectors, 2 ** (like.bits * config.codebook_dim))
        codes = like.codes[..., :: config.codebook_dim]
        return dataclasses.replace(like, codes=codes, grid="codebook", book=book)
    return dataclasses.replace(like, grid=config.grid)


def _choose_codes(
    weight: Tensor, nearest: Codes, config: QuantConfig, factor: Factor | None
) -> Codes:
    rate = config.rate_weight
    price = code_prices(nearest.codes, nearest.limit, rate) if rate else None
    if factor is not None and config.method == "gptq":
        return gptq(weight, nearest, factor, price)
    if price is None:
        return nearest
    steps = weight.double() / steps_of(nearest).double()
    codes = snap(steps, nearest, limits_of(nearest), price).to(torch.int8)
    return dataclasses.replace(nearest, codes=codes)


def _fine_columns(weight_RC: Tensor, factor: Factor, config: QuantConfig) -> Fine:
    """Return the run of columns that matters most: input times mean weight, summed.

    Source: Lin et al. 2023, arXiv:2306.00978; openai/parameter-golf PR 1908 (columns in a run).
    """
    width = min(config.awq_columns, weight_RC.shape[-1])
    inputs_C = factor.hessian_CC.diagonal()
    matters_C = inputs_C.sqrt() * weight_RC.double().abs().mean(0)
    starts = range(0, weight_RC.shape[-1] - width + 1, width)
    start = max(starts, key=lambda at: float(matters_C[at : at + width].sum()))
    return Fine(start, start + width, config.awq_halvings)


def _refit(weight: Tensor, codes: Codes, config: QuantConfig, factor: Factor | None) -> Codes:
    """Return the codes on scales that fit them best."""
    importance_C = torch.ones(weight.shape[-1], dtype=torch.float64)
    if factor is not None:
        importance_C = factor.hessian_CC.diagonal()
    # A finer column's point is worth less than a step.
    unit = steps_of(dataclasses.replace(codes, scale=torch.ones_like(codes.scale)))
    points = points_of(codes) * unit
    if codes.scale.ndim == codes.codes.ndim:
        shape = (codes.scale.shape[-1], -1)
        weight, points = weight.unflatten(-1, shape), points.unflatten(-1, shape)
        importance_C = importance_C.unflatten(-1, shape)
    scale = refit_scale(weight, points, importance_C, codes.scale, config.scale_digits)
    return dataclasses.replace(codes, scale=scale)
