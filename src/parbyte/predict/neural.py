"""A GPT that walks over a text under the law "window W, stride S", at once or step by step.

Inputs of a lane: h[0] = BOS, h[i] = token i - 1. Chunk k predicts tokens kS .. kS+S-1 from inputs
h[kS] .. h[kS+S-1]; before them the model sees the last min(kS, W - S) inputs, its context.

W = 6, S = 2   inputs  0 1 2 3 4 5 6 7 8 9      each token is scored once, by the window that
chunk 0               [0 1]                     reaches furthest back; while the first window
chunk 1               [. . 2 3]                 fills, the cache just grows
chunk 2               [. . . . 4 5]
chunk 3                   [. . . . 6 7]         from here the window moves: the cache is rebuilt
chunk 4                       [. . . . 8 9]     from the last W - S inputs, positions from 0

S = 64 is the contest's sliding evaluation, S = W / 2 a cheap one, S = W independent windows.
Shapes: B lanes, T positions, C inputs before the chunk, D model_dim, V vocab.
"""

import torch
from torch import Tensor

from parbyte.model.gpt import GPT
from parbyte.predict.predictor import Predictor
from parbyte.predict.steps import FixedSteps, GrowingSteps, Steps


class NeuralPredictor(Predictor):
    """The artifact's network as a predictor: `step` keeps a KV cache, `log_probs` needs none."""

    def __init__(self, model: GPT, *, window: int, stride: int, fixed: bool | None = None) -> None:
        """Bind a model where it is and in the dtype that it computes in.

        fixed: step with shapes that never change (predict.steps); None: on a GPU.
        """
        assert 1 <= stride <= window
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self.model = model
        self.window = window
        self.device = next(model.parameters()).device
        self._fixed = self.device.type == "cuda" if fixed is None else fixed
        self.restore()

    @torch.inference_mode()
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. One parallel forward over the context and the chunk's inputs."""
        return self.model.logits(self.hidden(tokens_BT)).log_softmax(-1)

    @torch.inference_mode()
    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return the hidden states [B, T, D] that `log_probs` turns into rows."""
        return self.model.hidden(self.inputs(tokens_BT))[:, -tokens_BT.shape[1] :]

    @torch.inference_mode()
    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One position through the cache; on a GPU nothing waits for it."""
        steps, last_B1 = self._next(last_B)
        return steps.step(last_B1).log_softmax(-1)

    @torch.inference_mode()
    def step_hidden(self, last_B: Tensor) -> Tensor:
        """Return the hidden state [B, D] that `step` turns into a row, good until the next step."""
        steps, last_B1 = self._next(last_B)
        return steps.hidden(last_B1)

    @torch.inference_mode()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. The window moves on; the cache waits for the next `step`."""
        inputs_BC = self.inputs(chunk_BT)
        self._context_BC = inputs_BC[:, max(0, inputs_BC.shape[1] - self.window + self.chunk) :]
        self._first_B1 = chunk_BT[:, -1:].to(self.device)
        self._in_chunk = False

    def restore(self) -> None:
        """See Predictor. Forgets the past and its memory; the weights never change."""
        self._context_BC: Tensor | None = None
        self._first_B1: Tensor | None = None
        self.drop_cache()

    def drop_cache(self) -> None:
        """Forget what was computed from the weights: they have changed."""
        self._in_chunk = False
        self._steps: Steps | None = None
        self._cached: list[Tensor] = []

    def twin(self) -> "NeuralPredictor":
        """See Predictor. Both read the same weights."""
        return NeuralPredictor(self.model, window=self.window, stride=self.chunk, fixed=self._fixed)

    def inputs(self, tokens_BT: Tensor) -> Tensor:
        """Return context and chunk inputs int64[B, C + T]; a chunk's last token is no input."""
        context_BC, first_B1 = self.past(len(tokens_BT))
        return torch.cat([context_BC, first_B1, tokens_BT[:, :-1].to(self.device)], dim=1)

    def past(self, num_lanes: int) -> tuple[Tensor, Tensor]:
        """Return the context int64[B, C] and the chunk's first input int64[B, 1]."""
        if self._context_BC is None or self._first_B1 is None:
            bos_B1 = torch.full((num_lanes, 1), self.model.config.bos_id, device=self.device)
            return bos_B1[:, :0], bos_B1
        return self._context_BC, self._first_B1

    def _next(self, last_B: Tensor) -> tuple[Steps, Tensor]:
        """Return the steps that take the next input, and the input [B, 1]: it counts as taken."""
        last_B1 = last_B.to(self.device, non_blocking=True)[:, None]
        if not self._in_chunk or self._steps is None:
            self._steps = self._open_chunk(len(last_B))
        assert len(self._cached) <= self.chunk, "observe() comes after `chunk` steps"
        self._cached.append(last_B1)
        return self._steps, last_B1

    def _open_chunk(self, num_lanes: int) -> Steps:
        """Return steps whose cache holds the context and nothing else; it often does so already."""
        context_BC, _ = self.past(num_lanes)
        kind = FixedSteps if self._fixed else GrowingSteps
        steps = self._steps or kind(self.model, num_lanes, self.window)
        if not self._cached or not torch.equal(torch.cat(self._cached, dim=1), context_BC):
            steps.fill(context_BC)
        self._cached, self._in_chunk = [context_BC], True
        return steps
