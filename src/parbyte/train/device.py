"""Where training runs: device, threads, arithmetic switches, pace and peak memory."""

from collections import deque
from typing import Any

import torch

from parbyte.base.errors import ResourceError
from parbyte.base.machine import has_native_bfloat16, num_cores, process_peak_bytes
from parbyte.base.world import World

# Two steps in flight keep a GPU busy; more would only let the host's clock run ahead of it.
STEPS_IN_FLIGHT = 2


def pick_device(name: str, world: World) -> torch.device:
    """Return this rank's device; name is auto, cpu or cuda.

    Raises ResourceError if there is no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if world.local_rank >= num_devices:
        raise ResourceError(
            f"rank {world.rank} needs cuda device {world.local_rank}, but {num_devices} are there; "
            "start fewer ranks or set 'train.device' to 'cpu'"
        )
    return torch.device("cuda", world.local_rank)


def set_threads(threads: int, world: World) -> int:
    """Give torch `threads` CPU threads, or this rank's share of all cores if 0; return them."""
    chosen = threads or max(1, num_cores() // world.size)
    if torch.get_num_threads() != chosen:
        torch.set_num_threads(chosen)
    return chosen


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of activations; name is auto, float32 or bfloat16."""
    if name == "auto":
        is_native = device.type == "cuda" or has_native_bfloat16()
        return torch.bfloat16 if is_native else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def seed_noise(seed: int, step: int, world: World) -> None:
    """Make the noise of one step depend on seed, step and rank alone: a resumed run repeats it."""
    torch.manual_seed(((seed * world.size + world.rank) << 32) + step)


def set_arithmetic(device: torch.device, dtype: torch.dtype) -> None:
    """Allow TF32 for what stays float32 in a bfloat16 run on cuda; float32 means float32 else."""
    is_reduced = device.type == "cuda" and dtype == torch.bfloat16
    torch.set_float32_matmul_precision("high" if is_reduced else "highest")


def compile_options() -> dict[str, Any]:
    """Return what torch.compile is told beyond its defaults."""
    from torch._inductor import config

    # It joins the sums over rows of many layers to one kernel that spills its registers: on one
    # H100 60 of 780 ms of a step at 36 M parameters (torch 2.11; pytorch/pytorch issue 179423).
    name = "mix_order_reduction"
    return {f"triton.{name}": False} if hasattr(config.triton, name) else {}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory held so far: the GPU's tensors on cuda, else this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_peak_bytes()


class Pace:
    """Keep the host at most STEPS_IN_FLIGHT steps ahead of a GPU, without draining its queue."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._events: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """Mark the end of a step that was just queued, and wait for an older one."""
        if not self._is_cuda:
            return
        event = torch.cuda.Event()
        event.record()
        self._events.append(event)
        if len(self._events) > STEPS_IN_FLIGHT:
            self._events.popleft().synchronize()
