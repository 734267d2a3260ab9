"""Who am I among the ranks, and what a child process is told; the only reader of the environment.

One code path serves 1..N processes: every collective returns at once at world size 1.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """This process's place among the ranks of a torchrun launch."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True for the one rank that writes files and prints."""
        return self.rank == 0


def world_from_environment() -> World:
    """Read torchrun's RANK, WORLD_SIZE and LOCAL_RANK; a plain process is a world of one."""
    return World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


def named_compiler() -> str:
    """Return the C compiler that CC names for programs that start one; empty if it names none."""
    return os.environ.get("CC", "")


def environment_for_child(**changes: str) -> dict[str, str]:
    """Return this process's environment with some variables set."""
    return {**os.environ, **changes}


def init_process_group(world: World, device_type: str) -> None:
    """Join the ranks (NCCL on cuda, gloo on cpu); does nothing at world size 1 or if joined."""
    import torch
    import torch.distributed as dist

    if world.size == 1 or dist.is_initialized():
        return
    if device_type != "cuda":
        dist.init_process_group("gloo")
        return
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)


def leave_process_group(world: World) -> None:
    """Leave the ranks' process group if one was joined."""
    import torch.distributed as dist

    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def barrier(world: World) -> None:
    """Wait for all ranks."""
    import torch.distributed as dist

    if world.size > 1:
        dist.barrier()


def broadcast_floats(world: World, values: list[float], device_type: str) -> list[float]:
    """Return rank 0's float64 values on every rank: one clock, one decision."""
    import torch
    import torch.distributed as dist

    if world.size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device_type)
    dist.broadcast(tensor, src=0)
    return tensor.tolist()


def sum_floats(world: World, values: list[float], device_type: str) -> list[float]:
    """Return the element-wise float64 sum over all ranks."""
    import torch
    import torch.distributed as dist

    if world.size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device_type)
    dist.all_reduce(tensor)
    return tensor.tolist()
