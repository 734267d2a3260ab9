"""The law of `predict.neural` in arithmetic that gives the same bits on every machine.

Same windows, same network; but every sum runs in a fixed order through kernels.portable, and both
`step` and `log_probs` are those kernels. Threads change how the lanes are shared out, no number.
Shapes: B lanes, T positions, C inputs before the chunk, L layers, D model_dim, V vocab.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.kernels.portable.forward import forward
from parbyte.kernels.portable.net import Memory, Net, new_memory, reset_
from parbyte.kernels.portable.trace import Trace
from parbyte.kernels.portable.walk import rows_of, walk
from parbyte.model.gpt import GPT
from parbyte.predict.portable_weights import PortableWeights
from parbyte.predict.predictor import Predictor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class TracedChunk(NamedTuple):
    """A chunk's way through the network, as kernels.portable.backward wants it."""

    trace: Trace
    memory: Memory
    tokens_R: Ints
    lanes_R: Ints
    positions_R: Ints


class PortablePredictor(Predictor):
    """The artifact's network as a predictor whose every row is reproducible anywhere."""

    is_portable = True

    weights: PortableWeights
    """A copy of the model's. Whoever changes them calls `forget_rows`."""

    def __init__(self, model: GPT, *, window: int, stride: int) -> None:
        assert 1 <= stride <= window
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self.weights = PortableWeights(model, window)
        self._net = self.weights.net
        self._window = window
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The kernels of `step`, many positions in one call, in a second memory."""
        assert tokens_BT.shape[1] <= self.chunk
        context_BC, inputs_BT = self._inputs(tokens_BT)
        self._scored = _Tape.ready_for(self._scored, self._net, context_BC, self._window)
        return torch.from_numpy(self._scored.extend(inputs_BT))

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One position through the kernels."""
        last_B1 = _to_ints(last_B)[:, None]
        if not self._in_chunk or self._stepped is None:
            context_BC, _ = self._past(len(last_B))
            self._stepped = _Tape.ready_for(self._stepped, self._net, context_BC, self._window)
            self._num_steps, self._in_chunk = 0, True
        self._num_steps += 1
        assert self._num_steps <= self.chunk, "observe() comes after `chunk` steps"
        return torch.from_numpy(self._stepped.extend(last_B1)[:, 0])

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. The window moves on; the memories wait for the next call."""
        inputs_BC = np.concatenate(self._inputs(chunk_BT), axis=1)
        self._context_BC = inputs_BC[:, max(0, inputs_BC.shape[1] - self._window + self.chunk) :]
        self._first_B1 = _to_ints(chunk_BT)[:, -1:]
        self._in_chunk = False

    def trace(self, chunk_BT: Tensor) -> TracedChunk:
        """Walk over the current chunk once more, for the way back."""
        context_BC, inputs_BT = self._inputs(chunk_BT)
        tape = self._scored or self._stepped  # either may hold the context already
        return _Tape.ready_for(tape, self._net, context_BC, self._window).trace(inputs_BT)

    def forget_rows(self) -> None:
        """Drop all that was computed with earlier weights; the past stays."""
        self._stepped = self._scored = None

    def restore(self) -> None:
        """See Predictor. Forgets the past; the weights never change."""
        self._context_BC: Ints | None = None
        self._first_B1: Ints | None = None
        self._stepped: _Tape | None = None
        self._scored: _Tape | None = None
        self._in_chunk, self._num_steps = False, 0

    def _inputs(self, tokens_BT: Tensor) -> tuple[Ints, Ints]:
        """Return the context int64[B, C] and the chunk's inputs; its last token is no input."""
        context_BC, first_B1 = self._past(len(tokens_BT))
        return context_BC, np.concatenate([first_B1, _to_ints(tokens_BT)[:, :-1]], axis=1)

    def _past(self, num_lanes: int) -> tuple[Ints, Ints]:
        """Return the context int64[B, C] and the chunk's first input int64[B, 1]."""
        if self._context_BC is None or self._first_B1 is None:
            bos_B1 = np.full((num_lanes, 1), self._net.bos_id, np.int64)
            return bos_B1[:, :0], bos_B1
        return self._context_BC, self._first_B1


class _Tape:
    """A memory, and the inputs that it holds: the context, then some of the chunk."""

    def __init__(self, net: Net, num_lanes: int, window: int) -> None:
        self._net, self._memory = net, new_memory(net, num_lanes, window)
        self._inputs_BW = np.zeros((num_lanes, window), np.int64)
        self._length = 0
        self._note_opening()

    @staticmethod
    def ready_for(tape: "_Tape | None", net: Net, context_BC: Ints, window: int) -> "_Tape":
        """Return a tape that holds the context and nothing else; the one given often does so."""
        if tape is None or len(tape._inputs_BW) != len(context_BC):
            tape = _Tape(net, len(context_BC), window)
        tape._rewind(context_BC)
        return tape

    def extend(self, inputs_BT: Ints, skip: int = 0) -> Floats:
        """Append inputs; return the rows after them, float32[B, T - skip, V]."""
        start, threads = self._append(inputs_BT), torch.get_num_threads()
        return walk(self._net, self._memory, inputs_BT, start, skip=skip, threads=threads)

    def trace(self, inputs_BT: Ints) -> TracedChunk:
        """Append inputs; return all that the network computed for them."""
        rows = rows_of(inputs_BT, self._append(inputs_BT))
        return TracedChunk(forward(self._net, self._memory, *rows), self._memory, *rows)

    def _append(self, inputs_BT: Ints) -> int:
        """Note inputs; return how many were held before."""
        start, end = self._length, self._length + inputs_BT.shape[1]
        # The kernels check no bounds.
        assert end <= self._inputs_BW.shape[1], "more tokens than the window holds"
        assert inputs_BT.min() >= 0 and inputs_BT.max() < len(self._net.embed), "no such token"
        self._inputs_BW[:, start:end], self._length = inputs_BT, end
        return start

    def _rewind(self, context_BC: Ints) -> None:
        """Hold the context and nothing else."""
        length, memory = context_BC.shape[1], self._memory
        is_held = length <= self._length and np.array_equal(self._inputs_BW[:, :length], context_BC)
        if is_held and length == self._length:
            self._note_opening()
        elif is_held and length == self._opening:
            memory.last_token[:], memory.last_embed[:] = self._last_token_B, self._last_embed_BD
            self._length = length
        else:
            reset_(memory)
            self._length = 0
            if length:
                self.extend(context_BC, skip=length)
            self._note_opening()

    def _note_opening(self) -> None:
        """Note where the context ends, and what the memory keeps of its last position."""
        self._opening = self._length
        self._last_token_B = self._memory.last_token.copy()
        self._last_embed_BD = self._memory.last_embed.copy()


def _to_ints(tokens: Tensor) -> Ints:
    return tokens.to("cpu", torch.int64).numpy()
