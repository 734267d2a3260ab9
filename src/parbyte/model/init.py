"""Initial weights: small normal tables, orthogonal inputs, zero outputs."""

import torch
from torch import nn

from parbyte.model.config import ModelConfig

_VALUE_TABLE_STD = 0.01


@torch.no_grad()
def initialize_(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill `model` in place, one generator through all parameters in their order.

    Token and output tables: N(0, embed_init_std). q, k, v, up and the projections: orthogonal.
    attn.out and mlp.down stay zero, so every block starts as the identity; the bigram table stays
    zero too (its projection is not, else neither would ever get a gradient).
    Source: openai/parameter-golf record of 2026-04-27 (PR 1855).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if name in ("embed.table", "head"):
            parameter.normal_(0.0, config.embed_init_std, generator=generator)
        elif name == "value_embed.table":
            parameter.normal_(0.0, _VALUE_TABLE_STD, generator=generator)
        elif leaf in ("q", "k", "v", "up", "proj"):
            nn.init.orthogonal_(parameter, generator=generator)
