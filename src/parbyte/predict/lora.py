"""Test-time training of low-rank adapters, one per lane, begun anew with each document.

    matrix of a lane = W + (alpha / rank) up down,   down [R, I] drawn once, up [O, R] = 0 at a BOS

A document's adapter acts on that document's positions alone: what stands before its BOS in the
window, and what follows the next BOS inside a chunk, meets W. After a chunk each lane takes Adam
steps on the mean nats of the chunk's positions that belong to the document open at its end.
In phases: once so many tokens are scored, W itself is trained on all of them (predict.phases).
Sources: openai/parameter-golf PRs 77 and 1530; phases PRs 1610 and 1626, there over documents in
order of length, here in the order of the stream. Shapes: B lanes, T positions, C inputs before the
chunk, I inputs and O outputs of a matrix, R rank.
"""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.model.attention import BlockWeights
from parbyte.model.cache import Cache
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import LoraConfig
from parbyte.predict.lane_adapters import LaneAdapters
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.phases import Phases
from parbyte.predict.predictor import Predictor, is_padding


class LoraPredictor(Predictor):
    """A copy of the network with an adapter per lane."""

    def __init__(self, model: GPT, settings: LoraConfig, *, window: int, stride: int) -> None:
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self._settings, self._window = settings, window
        self._bos_id = model.config.bos_id
        self._artifact_model = model
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._inner = NeuralPredictor(self._model, window=window, stride=stride)
        for layer, block in enumerate(self._model.blocks):
            block.lane_weights = partial(self._adapt, layer)  # type: ignore[assignment]
        self.restore()

    @torch.inference_mode()
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. One parallel forward, the adapters on."""
        inputs_BC = self._inner.inputs(tokens_BT)
        num_context = inputs_BC.shape[1] - tokens_BT.shape[1]
        documents_BC = self._documents(inputs_BC)
        is_own_BC = documents_BC == documents_BC[:, num_context : num_context + 1]
        hidden_BCD = self._hidden(inputs_BC, is_own_BC)
        return self._model.logits(hidden_BCD[:, num_context:]).log_softmax(-1)

    @torch.inference_mode()
    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One position through a cache."""
        last_B1 = last_B.to(self._model.embed.table.device)[:, None]
        if self._cache is None:
            self._cache = self._open_cache(len(last_B))
            self._is_own_B1 = torch.ones_like(last_B1, dtype=torch.bool)
        else:
            self._is_own_B1 = self._is_own_B1 & (last_B1 != self._bos_id)
        hidden_B1D = self._hidden(last_B1, self._is_own_B1, self._cache)
        return self._model.logits(hidden_B1D[:, 0]).log_softmax(-1)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Begin anew where a document begins, then learn from the chunk."""
        inputs_BC = self._inner.inputs(chunk_BT)
        chunk_BT = chunk_BT.to(inputs_BC.device)
        first = inputs_BC.shape[1] - chunk_BT.shape[1]
        documents_BC = self._documents(inputs_BC)
        open_B1 = documents_BC[:, -1:] + (chunk_BT[:, -1:] == self._bos_id)
        is_own_BC = documents_BC == open_B1
        if self._adapters is None:
            self._adapters = LaneAdapters(self._model, self._settings, len(chunk_BT))
        self._adapters.reset_((open_B1 != documents_BC[:, first : first + 1])[:, 0])
        for _ in range(self._settings.epochs):
            self._learn(self._adapters, inputs_BC, chunk_BT, is_own_BC)
        self._is_own = None
        padding_BT = is_padding(inputs_BC[:, first : first + 1], chunk_BT, self._bos_id)
        self._phases.note(chunk_BT, int((~padding_BT).sum()))
        self._phases.run_if_due(self._model)
        self._inner.observe(chunk_BT)
        self._cache = None

    def restore(self) -> None:
        """See Predictor. The artifact's weights, and no adapters."""
        with torch.no_grad():
            pristine = dict(self._artifact_model.named_parameters())
            for name, parameter in self._model.named_parameters():
                parameter.copy_(pristine[name])
        self._inner.restore()
        self._adapters: LaneAdapters | None = None
        self._is_own: Tensor | None = None
        self._cache: Cache | None = None
        self._is_own_B1 = torch.ones(0, 1, dtype=torch.bool)
        self._phases = Phases(self._settings, self._bos_id, self._window)

    def _documents(self, inputs_BC: Tensor) -> Tensor:
        """Return the number of each input's document, counted from the window's start."""
        return (inputs_BC == self._bos_id).cumsum(1)

    def _open_cache(self, num_lanes: int) -> Cache:
        """Return a cache that holds the context, read with the adapters of this moment."""
        cache = self._model.new_cache(num_lanes, self._window)
        context_BC, first_B1 = self._inner.past(num_lanes)
        if context_BC.shape[1]:
            documents_BC = self._documents(torch.cat([context_BC, first_B1], dim=1))
            self._hidden(context_BC, (documents_BC == documents_BC[:, -1:])[:, :-1], cache)
        return cache

    def _hidden(self, tokens_BT: Tensor, is_own_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self._is_own = is_own_BT
        return self._model.hidden(tokens_BT, cache)

    def _adapt(self, layer: int, weights: BlockWeights) -> BlockWeights:
        if self._adapters is None or self._is_own is None:
            return weights
        return self._adapters.adapt(layer, weights, self._is_own)

    def _learn(
        self, adapters: LaneAdapters, inputs_BC: Tensor, chunk_BT: Tensor, is_own_BC: Tensor
    ) -> None:
        """Take one step on the chunk's positions that are the open document's own."""
        num_new = chunk_BT.shape[1]
        hidden_BTD = self._hidden(inputs_BC, is_own_BC)[:, -num_new:]
        flat = (self._model.logits(hidden_BTD).flatten(0, 1), chunk_BT.flatten())
        nats_BT = F.cross_entropy(*flat, reduction="none").view_as(chunk_BT)
        counts_BT = is_own_BC[:, -num_new:].to(nats_BT.dtype)
        counts_B = counts_BT.sum(1)
        mean_B = (nats_BT * counts_BT).sum(1) / counts_B.clamp(min=1)
        grads = torch.autograd.grad(mean_B.sum(), adapters.parameters())
        adapters.step_(list(grads), counts_B > 0)
