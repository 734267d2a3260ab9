"""Parameter-free pieces of a block: norm, rotary positions, the MLP's activation.

Shapes: B lanes or batch, T positions, D model_dim, H heads, K head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_NORM_EPS = 1e-7


def rms_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over the last dim; no weight, float32 inside."""
    x_f32 = x.float()
    return (x_f32 * _inverse_rms(x_f32).unsqueeze(-1)).to(x.dtype)


def norm_and_rotate(
    x_BTHK: Tensor, gain_H: Tensor, cos_T1K: Tensor, sin_T1K: Tensor, rope_dims: int
) -> Tensor:
    """Norm every head, multiply it by its gain, rotate its first `rope_dims` dims by position.

    cos, sin: float32 from `rotary_tables`. Float32 inside, the result has the dtype of x.
    Half-split layout: dim j pairs with dim j + rope_dims / 2. Source: RoFormer, arXiv 2104.09864;
    the partial form is openai/parameter-golf PR 315.
    """
    x_f32 = x_BTHK.float()
    normed = x_f32 * (_inverse_rms(x_f32) * gain_H).unsqueeze(-1)
    if rope_dims == 0:
        return normed.to(x_BTHK.dtype)
    half = rope_dims // 2
    # The backward of a split is one concatenation; that of slices pads and adds.
    first, second, rest = normed.split((half, half, x_BTHK.shape[-1] - rope_dims), dim=-1)
    swapped = torch.cat((second, first, rest), dim=-1)
    return torch.addcmul(normed * cos_T1K, swapped, sin_T1K).to(x_BTHK.dtype)


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


def _inverse_rms(x: Tensor) -> Tensor:
    return torch.rsqrt(torch.linalg.vecdot(x, x) * (1.0 / x.shape[-1]) + _NORM_EPS)
