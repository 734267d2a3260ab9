"""Token ids -> the residual stream's start, with the optional bigram and smear features.

Every look at the previous token stops at a document start. Shapes: B lanes or batch,
T positions, D model_dim, V vocab, G key/value heads, K head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parbyte.model.config import ModelConfig
from parbyte.model.layers import rms_norm

_BIGRAM_SCALE = 0.05
_VALUE_SCALE = 0.1
_SMEAR_START = 3.0
_SMEAR_DIMS = 12


class BigramEmbed(nn.Module):
    """Embed the hash of (previous token, token). Source: openai/parameter-golf PRs 65, 162."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(config.bigram_buckets, config.bigram_dim))
        self.proj = nn.Parameter(torch.zeros(config.model_dim, config.bigram_dim))
        self.scale = nn.Parameter(torch.full((1,), _BIGRAM_SCALE))

    def forward(self, tokens_BT: Tensor, previous_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Return [B, T, D] in `dtype`; a previous token of -1 means there is none."""
        bucket_BT = bigram_bucket(tokens_BT, previous_BT, self.table.shape[0])
        rows = F.embedding(bucket_BT, self.table).to(dtype)
        return F.linear(rows, (self.proj * self.scale).to(dtype))


class ValueEmbed(nn.Module):
    """Give each token a vector that later layers add to their values (PR 374, #1019 line)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kv_width = config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.table = nn.Parameter(torch.zeros(config.vocab_size, config.value_embed_dim))
        self.proj = nn.Parameter(torch.zeros(kv_width, config.value_embed_dim))
        self.scale = nn.Parameter(torch.full((1,), _VALUE_SCALE))

    def forward(self, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Return [B, T, G, K] in `dtype`."""
        rows = F.embedding(tokens_BT, self.table).to(dtype)
        values = F.linear(rows, (self.proj * self.scale).to(dtype))
        return values.unflatten(-1, (-1, self.head_dim))


class Smear(nn.Module):
    """Mix the previous position's embedding into each one, never across a document start.

    static: g x + (1 - g) x_prev, g = sigmoid(gate) per dim. gated: x + scale sigmoid(w . x[:12])
    x_prev, with w = gate. Source: openai/parameter-golf PRs 65 (static), 1667 (gated).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_gated = config.smear == "gated"
        if self.is_gated:
            self.gate = nn.Parameter(torch.zeros(min(_SMEAR_DIMS, config.model_dim)))
            self.scale = nn.Parameter(torch.zeros(1))
        else:
            self.gate = nn.Parameter(torch.full((config.model_dim,), _SMEAR_START))

    def forward(self, x_BTD: Tensor, last_B1D: Tensor | None, has_previous_BT: Tensor) -> Tensor:
        """Return [B, T, D]. last_B1D: the embedding before the first position, None for zeros."""
        dtype = x_BTD.dtype
        if last_B1D is None:
            previous_BTD = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        elif x_BTD.shape[1] == 1:
            previous_BTD = last_B1D
        else:
            previous_BTD = torch.cat([last_B1D, x_BTD[:, :-1]], dim=1)
        previous_BTD = previous_BTD * has_previous_BT.unsqueeze(-1)
        if self.is_gated:
            logit = (x_BTD[..., : self.gate.shape[0]] * self.gate.to(dtype)).sum(-1, keepdim=True)
            return x_BTD + torch.sigmoid(logit) * self.scale.to(dtype) * previous_BTD
        return torch.lerp(previous_BTD, x_BTD, torch.sigmoid(self.gate).to(dtype))


class Embed(nn.Module):
    """Token table, plus bigram and smear where the recipe asks for them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(config.vocab_size, config.model_dim))
        self.bigram = BigramEmbed(config) if config.bigram_buckets else None
        self.smear = Smear(config) if config.smear != "none" else None
        self.looks_back = self.bigram is not None or self.smear is not None

    def forward(
        self,
        tokens_BT: Tensor,
        previous_BT: Tensor | None,
        last_B1D: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Return the normed start of the residual stream and the embedding before smear.

        previous_BT: the token before each one, -1 where there is none (see model.cache); may be
        None unless this looks back.
        """
        embed_BTD = F.embedding(tokens_BT, self.table).to(dtype)
        if self.bigram is not None:
            assert previous_BT is not None
            embed_BTD = embed_BTD + self.bigram(tokens_BT, previous_BT, dtype)
        x_BTD = embed_BTD
        if self.smear is not None:
            assert previous_BT is not None
            x_BTD = self.smear(x_BTD, last_B1D, previous_BT >= 0)
        return rms_norm(x_BTD), embed_BTD


def bigram_bucket(tokens_BT: Tensor, previous_BT: Tensor, num_buckets: int) -> Tensor:
    """Return int64[B, T]: (36313 id XOR 27191 previous) mod (buckets - 1); the last one if none."""
    mixed = (tokens_BT * 36313) ^ (previous_BT * 27191)
    return torch.where(previous_BT < 0, num_buckets - 1, mixed % (num_buckets - 1))
