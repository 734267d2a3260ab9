"""Causal attention with grouped heads: the one place that calls scaled dot-product attention.

Training on a GPU calls FlashAttention-3 (arXiv 2407.08608) where its package can be imported. What
prices tokens never does: a stream's bits may not depend on which packages stand beside parbyte.
Shapes: B batch, H query heads, G key/value heads (G divides H), T new positions, S all positions
(the T queries are the last T of them), K head_dim.
"""

import contextlib
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# On one H100 cuDNN took 2.29 ms where flash took 3.34 (forward and backward, 98,304 tokens);
# the others are there for shapes and masks that cuDNN refuses.
_CUDA_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# cuDNN's plan, and with it the last bit, depends on what the process attended to before.
_REPEATABLE = _CUDA_BACKENDS[1:]
# The others add up gradients of queries in the order in which blocks happen to end.
_REPEATABLE_GRADIENTS = [SDPBackend.MATH]
_FLASH_3 = "flash_attn_interface"
_FLASH_3_DTYPES = (torch.bfloat16, torch.float16)


def _load_flash_attention_3() -> Callable[..., Any] | None:
    try:
        return import_module(_FLASH_3).flash_attn_func if find_spec(_FLASH_3) else None
    except ImportError:  # built for another version of torch
        return None


flash_attention_3 = _load_flash_attention_3()
"""The package's function over [B, T, H, K], or None where there is none."""


def causal_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    mask: Tensor | None,
    repeatable: bool = False,
) -> Tensor:
    """Attend from the last T of S positions to all positions up to their own.

    mask: bool[B or 1, 1, T, S], True where a query may look, causality included; None = causal.
    repeatable: give the result, and by one matrix of scores its gradients, the same bits in every
    process on the same device. A single query without a mask always is.
    Returns [B, H, T, K]. Logits are scaled by 1/sqrt(K).
    """
    num_queries, num_keys = q_BHTK.shape[2], k_BGSK.shape[2]
    if num_queries == 1 and mask is None:
        return _attend_one(q_BHTK, k_BGSK, v_BGSK)
    is_causal = mask is None and num_queries == num_keys
    if mask is None and not is_causal:
        mask = lower_right_mask(num_queries, num_keys, q_BHTK.device)
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    if not q_BHTK.is_cuda:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped
        )
    wants_grads = q_BHTK.requires_grad
    is_learning = wants_grads and not repeatable
    if flash_attention_3 and is_causal and is_learning and q_BHTK.dtype in _FLASH_3_DTYPES:
        return attend_by_flash_3(flash_attention_3, q_BHTK, k_BGSK, v_BGSK)
    backends = _CUDA_BACKENDS
    if repeatable:
        backends = _REPEATABLE_GRADIENTS if wants_grads else _REPEATABLE
    with sdpa_kernel(backends, set_priority=True):
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped
        )


def lower_right_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return bool[1, 1, T, S]: query t is position S - T + t and sees itself and all before."""
    ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=num_keys - num_queries)[None, None]


def attend_by_flash_3(
    attend: Callable[..., Any], q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor
) -> Tensor:
    """Return what FlashAttention-3's function gives, [B, H, T, K]; it groups heads itself."""
    y_BTHK = attend(*(x.transpose(1, 2) for x in (q_BHTK, k_BGTK, v_BGTK)), causal=True)
    # Its older versions also return the logarithms of the sums.
    y_BTHK = y_BTHK[0] if isinstance(y_BTHK, tuple) else y_BTHK
    return cast("Tensor", y_BTHK).transpose(1, 2)


def _attend_one(q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
    # One query sees everything, so the query heads of a group can stand where positions stand:
    # grouped heads cost no copy of the keys, on any back end.
    lanes, heads, _, head_dim = q_BH1K.shape
    groups = k_BGSK.shape[1]
    q_BGRK = q_BH1K.reshape(lanes, groups, heads // groups, head_dim)
    is_cuda = q_BH1K.is_cuda
    with sdpa_kernel(_REPEATABLE, set_priority=True) if is_cuda else contextlib.nullcontext():
        y_BGRK = F.scaled_dot_product_attention(q_BGRK, k_BGSK, v_BGSK)
    return y_BGRK.reshape(lanes, heads, 1, head_dim)
