"""A small network in float64 and a stream for it: what every claim is compared on."""

import pytest
import torch
from torch import Tensor, nn

VOCAB, DIM = 11, 5


class SmallBlock(nn.Module):
    """One matrix and one vector, under the names that the network's parts have."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.up = nn.Parameter(_normal(generator, DIM, DIM))
        self.mlp_scale = nn.Parameter(_normal(generator, DIM))


class SmallNet(nn.Module):
    """Causal: a running mean of embeddings through two blocks; logits are softcapped at 3."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Module()
        self.embed.table = nn.Parameter(_normal(generator, VOCAB, DIM))
        self.blocks = nn.ModuleList(SmallBlock(generator) for _ in range(2))

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embed.table[tokens_BT]
        count_T1 = torch.arange(1, tokens_BT.shape[1] + 1, dtype=x_BTD.dtype)[:, None]
        x_BTD = x_BTD + 0.5 * x_BTD.cumsum(1) / count_T1
        for block in self.blocks:
            x_BTD = x_BTD + block.mlp_scale * torch.tanh(x_BTD @ block.mlp.up.T)
        return x_BTD

    def logits(self, hidden: Tensor) -> Tensor:
        return 3.0 * torch.tanh(hidden @ self.embed.table.T / 3.0)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return 0.7 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def net() -> SmallNet:
    return SmallNet()


@pytest.fixture
def stream() -> Tensor:
    """96 tokens: some noise, some repetition."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, VOCAB, (40,), generator=generator)
    return torch.cat([noise, noise[5:30], noise[:31]])
