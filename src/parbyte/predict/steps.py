"""One position of all lanes through a KV cache: with shapes that grow, or with shapes that stay.

Growing shapes cost the CPU least: attention touches what is filled and no mask is needed. Fixed
shapes are what a CUDA graph can hold: a step on a GPU is one launch. Both give the same rows.
Shapes: B lanes, C positions of the context, D model_dim, V vocab.
"""

from typing import Protocol

import torch
from torch import Tensor

from parbyte.model.gpt import GPT

_FILL_TOKENS = 1 << 16
"""Tokens of a context that go through the network at once: it bounds the activations' memory."""

_WARM_UPS = 3
"""Runs before a capture: kernels are compiled and libraries set up outside it."""


class Steps(Protocol):
    """A cache and the network that walks over it."""

    def fill(self, context_BC: Tensor) -> None:
        """Make the cache hold these inputs and nothing else."""
        ...

    def hidden(self, last_B1: Tensor) -> Tensor:
        """Append one input; return its hidden state [B, D], good until the next call."""
        ...

    def step(self, last_B1: Tensor) -> Tensor:
        """Append one input; return float32 logits [B, V], good until the next call."""
        ...


class GrowingSteps:
    """Attend to a slice of the cache that grows with every step."""

    def __init__(self, model: GPT, num_lanes: int, window: int) -> None:
        self._model = model
        self._cache = model.new_cache(num_lanes, window)

    def fill(self, context_BC: Tensor) -> None:
        """See Steps."""
        self._cache.reset()
        if context_BC.shape[1]:
            self._model.hidden(context_BC, self._cache)

    def hidden(self, last_B1: Tensor) -> Tensor:
        """See Steps."""
        return self._model.hidden(last_B1, self._cache)[:, 0]

    def step(self, last_B1: Tensor) -> Tensor:
        """See Steps."""
        return self._model.logits(self.hidden(last_B1))


class FixedSteps:
    """Attend to the whole cache, of which a part counts; on a GPU one CUDA graph is the step."""

    def __init__(self, model: GPT, num_lanes: int, window: int) -> None:
        self._model = model
        self._cache = model.new_cache(num_lanes, window, fixed=True)
        device = self._cache.documents.device
        self._last_B1 = torch.full((num_lanes, 1), model.config.bos_id, device=device)
        self._graph = torch.cuda.CUDAGraph() if device.type == "cuda" else None
        if self._graph is not None:
            self._capture(self._graph)

    def fill(self, context_BC: Tensor) -> None:
        """See Steps."""
        num_lanes, length = context_BC.shape
        self._cache.reset()
        if not length:
            return
        lanes_at_once = max(1, _FILL_TOKENS // length)
        for start in range(0, num_lanes, lanes_at_once):
            lanes = slice(start, start + lanes_at_once)
            self._model.hidden(context_BC[lanes], self._cache.part(lanes))
        self._cache.position_1.fill_(length)
        self._cache.length = length

    def hidden(self, last_B1: Tensor) -> Tensor:
        """See Steps."""
        return self._take(last_B1)[0]

    def step(self, last_B1: Tensor) -> Tensor:
        """See Steps."""
        return self._take(last_B1)[1]

    def _take(self, last_B1: Tensor) -> tuple[Tensor, Tensor]:
        assert self._cache.length < self._cache.capacity, "the caller refills a full cache"
        if self._graph is None:
            return self._run(last_B1)
        self._last_B1.copy_(last_B1)
        self._graph.replay()
        self._cache.length += 1  # the graph itself has moved what is on the device
        return self._captured

    def _run(self, last_B1: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BD = self._model.hidden(last_B1, self._cache)[:, 0]
        return hidden_BD, self._model.logits(hidden_BD)

    def _capture(self, graph: torch.cuda.CUDAGraph) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._cache.reset()
                self._run(self._last_B1)
        torch.cuda.current_stream().wait_stream(stream)
        self._cache.reset()
        with torch.cuda.graph(graph):
            self._captured = self._run(self._last_B1)
        self._cache.reset()
