"""Copies between host and GPU that nobody waits for until the numbers are needed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def send(
    array: NDArray[np.integer], device: torch.device, side: torch.cuda.Stream | None = None
) -> Tensor:
    """Return an array as a tensor on `device`; a GPU's stream takes it when its turn comes.

    side: a stream that copies at once, beside what the GPU is working on; the current stream waits
    for that copy alone. On the CPU the tensor shares the array's memory.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    pinned = tensor.pin_memory()
    if side is None:
        return pinned.to(device, non_blocking=True)
    with torch.cuda.stream(side):
        sent = pinned.to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(side)
    sent.record_stream(current)
    return sent


class Arriving:
    """Tensors on their way to the host: asked for now, waited for in `wait`."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event = torch.cuda.Event() if tensors[0].is_cuda else None
        self._here = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        if self._event is not None:
            self._event.record()

    def wait(self) -> list[NDArray[np.float32]]:
        """Return the tensors as arrays."""
        if self._event is not None:
            self._event.synchronize()
        return [tensor.numpy() for tensor in self._here]
