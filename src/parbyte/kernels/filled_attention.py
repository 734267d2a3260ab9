"""One query per lane over a cache of fixed size of which a part is filled.

The shapes never change and the number of filled positions lives on the device, so that a CUDA graph
can replay the call at every position. On a GPU a kernel reads the filled part and nothing else.
Shapes: B lanes, H query heads, G key/value heads (G divides H), S the cache's size, K head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_ROWS = 16
"""Query heads of a group, padded: the smallest side of a matrix product."""


def filled_attention(
    q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, position_1: Tensor, first_B: Tensor
) -> Tensor:
    """Attend from `position_1` to the positions first_B .. position_1 of each lane.

    position_1: int64[1]. first_B: int64[B]. Returns [B, H, 1, K]; logits are scaled by 1/sqrt(K).
    """
    repeats, head_dim = q_BH1K.shape[1] // k_BGSK.shape[1], q_BH1K.shape[3]
    if not (q_BH1K.is_cuda and fits_kernel(repeats, head_dim)):
        return masked_attention(q_BH1K, k_BGSK, v_BGSK, position_1, first_B)
    from parbyte.kernels.filled_attention_triton import launch  # it loads the compiler

    return launch(q_BH1K, k_BGSK, v_BGSK, position_1, first_B)


def fits_kernel(repeats: int, head_dim: int) -> bool:
    """Say whether the kernel knows groups of so many query heads, and heads of that size."""
    return repeats <= KERNEL_ROWS and head_dim >= 16 and head_dim & (head_dim - 1) == 0


def masked_attention(
    q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, position_1: Tensor, first_B: Tensor
) -> Tensor:
    """Compute `filled_attention` with a mask over the whole cache."""
    place_S = torch.arange(k_BGSK.shape[2], device=k_BGSK.device)
    mask_BS = (place_S <= position_1) & (place_S >= first_B[:, None])
    grouped = q_BH1K.shape[1] != k_BGSK.shape[1]
    return F.scaled_dot_product_attention(
        q_BH1K, k_BGSK, v_BGSK, attn_mask=mask_BS[:, None, None], enable_gqa=grouped
    )
