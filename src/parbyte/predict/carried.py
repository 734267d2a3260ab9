"""A GPT whose keys and values are carried from window to window: the stateful law.

Chunks and windows are those of predict.neural, but when the window moves its oldest positions are
dropped and the others stay as they were computed, each from the window of its own time:

W = 6, S = 2   inputs  0 1 2 3 4 5 6 7 8 9      one forward of every token in all, and a layer sees
chunk 2               [. . . . 4 5]             what the layer below saw further back: with L layers
chunk 3                   [. . . . 6 7]         a row depends on up to L (W - S) inputs before its
chunk 4                       [. . . . 8 9]     chunk

That is attention within a band over the whole text. Re-feeding the overlap to an empty cache, as a
network without recurrent state does in openai/parameter-golf PR 1644, is the law of predict.neural.
Source: PR 1644 (stateful evaluation); Transformer-XL, arXiv:1901.02860, section 3.2.
Shapes: B lanes, T positions.
"""

import copy

import torch
from torch import Tensor

from parbyte.model.cache import Cache
from parbyte.model.gpt import GPT
from parbyte.model.layers import rotary_tables
from parbyte.predict.predictor import Predictor


class CarriedPredictor(Predictor):
    """The artifact's network over one cache that moves with the text."""

    def __init__(self, model: GPT, *, window: int, stride: int) -> None:
        assert 1 <= stride <= window
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self._model, self._window = model, window
        self._device = model.embed.table.device
        self.restore()

    @torch.inference_mode()
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. One parallel forward of the chunk over the cache as it was before it."""
        cache = self._cache_for(len(tokens_BT))
        if self._fed:
            # The steps of this chunk are in the cache, and are to stay there.
            cache = copy.deepcopy(cache, {id(cache.weights): cache.weights})
            cache.rewind(self._mark)
        hidden_BTD = self._model.hidden(self._inputs(tokens_BT), cache)
        cache.rewind(self._mark)
        return self._model.logits(hidden_BTD).log_softmax(-1)

    @torch.inference_mode()
    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One position through the cache."""
        assert len(self._fed) < self.chunk, "observe() comes after `chunk` steps"
        last_B1 = last_B.to(self._device)[:, None]
        hidden_B1D = self._model.hidden(last_B1, self._cache_for(len(last_B)))
        self._fed.append(last_B1)
        return self._model.logits(hidden_B1D[:, 0]).log_softmax(-1)

    @torch.inference_mode()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. The chunk's keys and values stay; the oldest make room."""
        cache, inputs_BT = self._cache_for(len(chunk_BT)), self._inputs(chunk_BT)
        if not self._fed or not torch.equal(torch.cat(self._fed, dim=1), inputs_BT):
            cache.rewind(self._mark)
            self._model.hidden(inputs_BT, cache)
        num_dropped = cache.length - (self._window - self.chunk)
        if num_dropped > 0:
            cache.drop_oldest(num_dropped)
            self._num_dropped += num_dropped
            cache.cos, cache.sin = self._rotary(self._num_dropped)
        self._first_B1 = chunk_BT[:, -1:].to(self._device)
        self._note(cache)

    def restore(self) -> None:
        """See Predictor. Forgets the past; the weights never change."""
        self._cache: Cache | None = None
        self._first_B1: Tensor | None = None
        self._fed: list[Tensor] = []
        self._num_dropped = 0

    def _cache_for(self, num_lanes: int) -> Cache:
        if self._cache is None:
            self._cache = self._model.new_cache(num_lanes, self._window)
            self._note(self._cache)
        return self._cache

    def _note(self, cache: Cache) -> None:
        """Remember where the past ends in the cache."""
        self._fed = []
        self._mark = cache.mark()

    def _inputs(self, tokens_BT: Tensor) -> Tensor:
        """Return the chunk's inputs int64[B, T]; its last token is none."""
        first_B1 = self._first_B1
        if first_B1 is None:
            bos_id = self._model.config.bos_id
            first_B1 = torch.full((len(tokens_BT), 1), bos_id, device=self._device)
        return torch.cat([first_B1, tokens_BT[:, :-1].to(self._device)], dim=1)

    def _rotary(self, start: int) -> tuple[Tensor, Tensor]:
        config = self._model.config
        shape = (self._window, config.head_dim, config.rope_dims, config.rope_base)
        cos, sin = rotary_tables(*shape, start=start)
        return cos.to(self._device), sin.to(self._device)
