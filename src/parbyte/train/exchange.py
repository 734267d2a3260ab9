"""What ranks exchange in one step: averaged gradients and shares of the orthogonalised updates.

Stacks of matrices are reduced and scattered, so that each rank gets the mean of its own share and
works on that alone; all other gradients are averaged everywhere. At world size 1 nothing is
exchanged. Letters: N matrices, P the same padded to a multiple of ranks, R rows, C columns.
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


def average_gradients_(
    stacks: Sequence[Tensor], others: Sequence[Tensor], weight: float, world: World
) -> list[Tensor]:
    """Return this rank's share of the mean of every stack, and replace the others by their mean.

    All are each rank's gradients, already multiplied by its `weight`, the share of its positions
    that count; the mean is sum(gradients) / sum(weights). stacks: [N, R, C], used up.
    """
    if world.size == 1:
        if weight != 1.0:
            torch._foreach_mul_([*stacks, *others], 1.0 / weight)
        return list(stacks)
    scatterings = [Scattering(stack, world) for stack in stacks]
    large = [grad for grad in others if grad.numel() > _SMALL_ELEMENTS]
    small = [grad for grad in others if grad.numel() <= _SMALL_ELEMENTS]
    handles = [dist.all_reduce(grad, async_op=True) for grad in large]
    own_weight = stacks[0].new_full((1,), weight)
    flat = torch.cat([*(grad.reshape(-1) for grad in small), own_weight])
    dist.all_reduce(flat)
    *pieces, total = flat.split([grad.numel() for grad in small] + [1])
    if small:
        torch._foreach_copy_(small, [p.view_as(g) for p, g in zip(pieces, small, strict=True)])
    for handle in handles:
        assert handle is not None
        handle.wait()
    own = [scattering.wait() for scattering in scatterings]
    torch._foreach_mul_([*own, *others], total.reciprocal().reshape(()))
    return own


def joint_norm(own: Sequence[Tensor], others: Sequence[Tensor], world: World) -> Tensor:
    """Return the Euclidean norm of all gradients: every rank's shares, and those they all have."""
    norms = torch.stack(torch._foreach_norm([*own, *others]))
    if world.size > 1:
        squares = norms[: len(own)].square()
        dist.all_reduce(squares)
        norms = torch.cat([squares.sqrt(), norms[len(own) :]])
    return torch.linalg.vector_norm(norms)


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


class Scattering:
    """A sum over ranks that may still be under way; each rank gets its share of it."""

    def __init__(self, stack_NRC: Tensor, world: World) -> None:
        self._share = share_of(len(stack_NRC), world)
        # The source must outlive the transfer.
        self._source_PRC = _padded(stack_NRC, self._share.padded * world.size)
        self._own = stack_NRC.new_empty(self._share.padded, *stack_NRC.shape[1:])
        self._handle = dist.reduce_scatter_tensor(self._own, self._source_PRC, async_op=True)

    def wait(self) -> Tensor:
        """Return this rank's matrices, float32[num_own, R, C]."""
        assert self._handle is not None
        self._handle.wait()
        return self._own[: self._share.num_own]


class Gathering:
    """A gather of every rank's share that may still be under way."""

    def __init__(self, own_NRC: Tensor, num_pieces: int, world: World) -> None:
        self._handle = None
        self._all_NRC = own_NRC
        self._num_pieces = num_pieces
        if world.size == 1:
            return
        padded = share_of(num_pieces, world).padded
        # The source must outlive the transfer.
        self._source = _padded(own_NRC, padded)
        self._all_NRC = own_NRC.new_empty(padded * world.size, *own_NRC.shape[1:])
        self._handle = dist.all_gather_into_tensor(self._all_NRC, self._source, async_op=True)

    def wait(self) -> Tensor:
        """Return all pieces in order, float32[N, R, C]."""
        if self._handle is not None:
            self._handle.wait()
        return self._all_NRC[: self._num_pieces]


def _padded(stack_NRC: Tensor, length: int) -> Tensor:
    """Return the stack with zeros after its last matrix, contiguous."""
    if len(stack_NRC) == length:
        return stack_NRC.contiguous()
    padded = stack_NRC.new_zeros(length, *stack_NRC.shape[1:])
    padded[: len(stack_NRC)] = stack_NRC
    return padded
