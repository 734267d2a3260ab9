"""Causal attention inside documents that stand end to end: nothing across a border is computed.

A GPU kernel; everything else masks T x T scores. Only a training in half precision asks for it.
Shapes: B rows, T positions, E ends of documents, H query heads, G key/value heads, K head_dim.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DTYPES = (torch.bfloat16, torch.float16)
# Before, heads are grouped without being asked.
_GROUPED: dict[str, Any] = {"enable_gqa": True} if torch.__version__ >= "2.12" else {}


def can_pack_documents(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether `packed_attention` has a kernel there."""
    return device.type == "cuda" and dtype in _DTYPES


def document_ends(is_start_BT: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return int32[E]: 0, then where each document ends in all rows joined; a row ends one too."""
    is_start_BT = is_start_BT.copy()
    is_start_BT[:, 0] = True
    return np.append(np.flatnonzero(is_start_BT), is_start_BT.size).astype(np.int32)


def packed_attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, ends_E: Tensor) -> Tensor:
    """Attend inside documents; returns [B, T, H, K]. Logits are scaled by 1/sqrt(K).

    Source: FlashAttention-2, arXiv 2307.08691, as `torch.nn.attention.varlen` has it.
    """
    # Loaded only where it is used, as few trainings are.
    from torch.nn.attention.varlen import varlen_attn

    longest = q_BTHK.shape[1]
    y_NHK = varlen_attn(
        q_BTHK.flatten(0, 1),
        k_BTGK.flatten(0, 1),
        v_BTGK.flatten(0, 1),
        ends_E,
        ends_E,
        longest,
        longest,
        window_size=(-1, 0),
        **_GROUPED,
    )
    return cast("Tensor", y_NHK).view_as(q_BTHK)
