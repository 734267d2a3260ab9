"""Parameter-free pieces of a block: norm, dropout, the tables of rotary positions.

Shapes: B lanes or batch, T positions, D model_dim, H heads, K head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.kernels.heads import inverse_rms


def rms_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over the last dim; no weight, float32 inside."""
    x_f32 = x.float()
    return (x_f32 * inverse_rms(x_f32).unsqueeze(-1)).to(x.dtype)


def drop(x: Tensor, share: float) -> Tensor:
    """Zero a random share of the elements and scale the rest up; nothing is drawn for share 0.

    Source: Srivastava et al. 2014, JMLR 15.
    """
    return F.dropout(x, share) if share else x


def rotary_tables(
    num_positions: int, head_dim: int, rope_dims: int, base: float, *, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Return float32[T, 1, K] cosines and signed sines; pair j turns base^(-2 j / rope_dims).

    The first row is position `start`. The dims that carry no position have cosine 1 and sine 0.
    """
    exponents = torch.arange(0, rope_dims, 2, dtype=torch.float64) / max(rope_dims, 1)
    positions = torch.arange(start, start + num_positions, dtype=torch.float64)
    angles = positions[:, None] * base**-exponents
    cos, sin = torch.ones(num_positions, head_dim), torch.zeros(num_positions, head_dim)
    half = rope_dims // 2
    cos[:, :rope_dims] = angles.cos().repeat(1, 2)
    sin[:, :half], sin[:, half:rope_dims] = angles.sin(), -angles.sin()
    return cos[:, None], sin[:, None]
