"""An exact set of whole numbers in one tensor: open addressing, many keys at a time.

Keys are at least 0; their number must stay below that of the slots. Shapes: S slots, a power of
two; N keys; L keys that still look for their slot.
"""

import torch
from torch import Tensor

NONE = -1
"""No key: what a free slot holds. No slot: where a key stands that is not there."""
_MULTIPLIER, _SECOND = -0x61C8864680B583EB, -0x3D4D51C2D82B14B1
_SHIFT, _HALF = 29, 33


def find(keys_S: Tensor, keys_N: Tensor) -> Tensor:
    """Return the slot of each key, or NONE.

    Updates and queries both come here or to `insert_`: one hash, one way of probing.
    """
    return _probe_(keys_S, keys_N, inserts=False)


def insert_(keys_S: Tensor, keys_N: Tensor) -> Tensor:
    """Return the slot of each key; write the new ones, for which there must be room."""
    return _probe_(keys_S, keys_N, inserts=True)


def _probe_(keys_S: Tensor, keys_N: Tensor, *, inserts: bool) -> Tensor:
    """Follow each key to its slot, or to the first free one of those where it may stand.

    Probes lie 1, 2, 3, ... slots apart, which visits every slot. Of the keys that want one free
    slot the largest gets it; the others go on.
    """
    mixed_N = keys_N * _MULTIPLIER
    mixed_N = (mixed_N ^ (mixed_N >> _SHIFT)) * _SECOND
    mask, apart = len(keys_S) - 1, 0
    slots_N, left_L = (mixed_N >> _HALF) & mask, torch.arange(len(keys_N), device=keys_N.device)
    while len(left_L):
        slots_L, keys_L = slots_N[left_L], keys_N[left_L]
        if inserts:
            is_free_L = keys_S[slots_L] == NONE
            keys_S.scatter_reduce_(0, slots_L[is_free_L], keys_L[is_free_L], "amax")
        held_L = keys_S[slots_L]
        slots_N[left_L[held_L == NONE]] = NONE
        left_L = left_L[(held_L != keys_L) & (held_L != NONE)]
        apart += 1
        slots_N[left_L] = (slots_N[left_L] + apart) & mask
    return slots_N
