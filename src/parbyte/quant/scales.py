"""The step of each row, or group of a row, by the recipe's rule.

Shapes: R rows, C columns; G groups of columns where they are grouped.
"""

import torch
from torch import Tensor

from parbyte.model.roles import Role
from parbyte.quant.config import QuantConfig
from parbyte.quant.gptq import Factor
from parbyte.quant.rounding import (
    frequency_factor,
    max_scale,
    mean_scale,
    search_scale,
    std_scale,
)


def choose_scale(
    weight_RC: Tensor, role: Role, bits: int, config: QuantConfig, factor_R: Tensor | None
) -> Tensor:
    """Return the float16[..., R] scales of weights with a row for each scale.

    factor_R: by how much the steps of each matrix row are wider with clip = "std"; all groups of a
    row share it.
    """
    digits = config.scale_digits
    if config.clip == "max" or role is Role.SCALAR:
        return max_scale(weight_RC, bits, digits)
    if config.clip == "search":
        return search_scale(weight_RC, bits, digits)
    if config.clip == "mean":
        return mean_scale(weight_RC, digits)
    if factor_R is not None:
        factor_R = factor_R.reshape(*factor_R.shape, *[1] * (weight_RC.ndim - 1 - factor_R.ndim))
    return std_scale(weight_RC, bits, digits, clip_std_of(role, config), factor_R)


def clip_std_of(role: Role, config: QuantConfig) -> float:
    """Return the k of `clip = "std"` for one role."""
    kind = "embed" if role in (Role.EMBED, Role.TABLE) else "matrix"
    usual = float(getattr(config, f"clip_std_{kind}"))
    own = 0.0 if role is Role.EMBED else float(getattr(config, f"clip_std_{role.value}", 0.0))
    return own or usual


def row_factor(
    weight_RC: Tensor,
    config: QuantConfig,
    token_counts: Tensor | None,
    factor: Factor | None,
    wider: float,
) -> Tensor | None:
    """Return by how much each row's steps are wider than its kind's, float32[..., R]; None: 1.

    token_counts: of a table with a row per token. wider: of the whole tensor.
    """
    parts = []
    if token_counts is not None:
        assert len(token_counts) == len(weight_RC), "one count for each token of the vocabulary"
        parts.append(frequency_factor(token_counts, config.frequency_power))
    if config.clip_hessian and factor is not None:
        parts.append(_importance_factor(weight_RC, factor, config.clip_hessian))
    if wider != 1.0:
        parts.append(weight_RC.new_full(weight_RC.shape[:-1], wider))
    return torch.stack(parts).prod(0) if parts else None


def _importance_factor(weight_RC: Tensor, factor: Factor, weight: float) -> Tensor:
    """Return 1 + x (r - 1), r the share that a row has in the outputs, 1 on average.

    Source: openai/parameter-golf PR 1412 (Hessian-aware clipping; 0.175 is its x).
    """
    power_R = (weight_RC.double().square() * factor.hessian_CC.diagonal()).sum(-1)
    share_R = power_R / power_R.mean().clamp_min(torch.finfo(torch.float64).tiny)
    return (1.0 + weight * (share_R - 1.0)).float()
