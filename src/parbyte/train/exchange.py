"""What ranks exchange in one step: averaged gradients and shares of the orthogonalised updates.

At world size 1 nothing is exchanged. Letters: N matrices, R rows, C columns.
"""

# torch leaves its list operations (_foreach_*) out of its public names.
# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from parbyte.base.world import World

# Below this size a collective costs its latency only, so such gradients travel in one flat buffer.
_SMALL_ELEMENTS = 32_768


def average_gradients_(grads: Sequence[Tensor], weight: float, world: World) -> None:
    """Replace weighted gradients by their mean over all ranks: sum(grads) / sum(weights).

    grads: each rank's gradient, already multiplied by its `weight`, the share of its positions
    that count.
    """
    if world.size == 1:
        if weight != 1.0:
            torch._foreach_mul_(list(grads), 1.0 / weight)
        return
    large = [grad for grad in grads if grad.numel() > _SMALL_ELEMENTS]
    small = [grad for grad in grads if grad.numel() <= _SMALL_ELEMENTS]
    handles = [dist.all_reduce(grad, async_op=True) for grad in large]
    own_weight = torch.full((1,), weight, device=grads[0].device, dtype=grads[0].dtype)
    flat = torch.cat([*(grad.reshape(-1) for grad in small), own_weight])
    dist.all_reduce(flat)
    *pieces, total = flat.split([grad.numel() for grad in small] + [1])
    if small:
        torch._foreach_copy_(small, [p.view_as(g) for p, g in zip(pieces, small, strict=True)])
    for handle in handles:
        assert handle is not None
        handle.wait()
    torch._foreach_mul_(list(grads), total.reciprocal().reshape(()))


@dataclass(frozen=True)
class Share:
    """This rank's contiguous part of N equal pieces of work."""

    start: int
    stop: int
    padded: int

    @property
    def num_own(self) -> int:
        """Return how many pieces are this rank's; the rest of `padded` is filler."""
        return self.stop - self.start


def share_of(num_pieces: int, world: World) -> Share:
    """Return the part of `num_pieces` that this rank works on; every share is padded alike."""
    padded = -(-num_pieces // world.size)
    start = min(world.rank * padded, num_pieces)
    return Share(start=start, stop=min(start + padded, num_pieces), padded=padded)


class Gathering:
    """A gather of every rank's share that may still be under way."""

    def __init__(self, own_NRC: Tensor, share: Share, num_pieces: int, world: World) -> None:
        self._handle = None
        self._all_NRC = own_NRC
        self._num_pieces = num_pieces
        if world.size == 1:
            return
        padded_NRC = own_NRC.new_zeros(share.padded, *own_NRC.shape[1:])
        padded_NRC[: share.num_own] = own_NRC
        self._all_NRC = own_NRC.new_empty(share.padded * world.size, *own_NRC.shape[1:])
        self._handle = dist.all_gather_into_tensor(self._all_NRC, padded_NRC, async_op=True)
        # The source must outlive the transfer.
        self._source_NRC = padded_NRC

    def wait(self) -> Tensor:
        """Return all pieces in order, float32[N, R, C]."""
        if self._handle is not None:
            self._handle.wait()
        return self._all_NRC[: self._num_pieces]
