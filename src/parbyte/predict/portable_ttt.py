"""Score-first test-time training in arithmetic that gives the same bits on every machine.

Chunk k is scored with the weights of that moment; `observe` then takes `epochs` optimizer steps on
the mean nats of exactly its tokens, all lanes together, and chunk k + 1 is scored, its context
included, with the new weights. The gradient flows through the chunk's rows; the keys, values and
last embedding of the context before them are constants. A BOS after a BOS is the padding of an
ended lane and teaches nothing.
Source: openai/parameter-golf PRs 461 and 549 (order of score and update); Krause et al. 2018,
arXiv 1709.07432 (dynamic evaluation).
Shapes: B lanes, T positions, R rows (time by time, lanes side by side), P parameters.
"""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from parbyte.base.errors import ArtifactError
from parbyte.kernels.portable.backward import backward_
from parbyte.kernels.portable.descent import adam_, sgd_, sum_of_squares
from parbyte.kernels.portable.net import cosine
from parbyte.model.gpt import GPT
from parbyte.model.roles import role_of
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.learning import decay_of, learning_names, rate_of
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.predictor import Predictor


class PortableTTT(Predictor):
    """The portable network, which learns from each chunk after it was scored."""

    is_portable = True

    def __init__(self, model: GPT, settings: TTTConfig, *, window: int, stride: int) -> None:
        if settings.optimizer == "muon":
            raise ArtifactError(
                "'predict.stack[0].optimizer' is 'muon', which the portable engine does not "
                "compute: choose adam or sgd, or set engine = 'torch'"
            )
        if model.config.loop:
            raise ArtifactError(
                "'predict.stack[0]' is 'ttt', which the portable engine does not compute for a "
                "network with 'model.loop': set engine = 'torch'"
            )
        self._inner = PortablePredictor(model, window=window, stride=stride)
        self.vocab_size, self.chunk = self._inner.vocab_size, stride
        self._bos_id = model.config.bos_id
        self._weights = self._inner.weights
        self._original_P = self._weights.flat_P.copy()
        self._grad_P = np.zeros_like(self._original_P)
        self._grads = self._weights.view(self._grad_P)
        names = learning_names(
            self._weights.pieces, settings.train, settings.last_blocks, model.config.num_layers
        )
        learning = {name: self._weights.pieces[name] for name in names}
        self._descent = _Descent(settings, learning, len(self._original_P))
        self._epochs = settings.epochs
        self.restore()

    @property
    def num_learning(self) -> int:
        """Count the parameters that learn."""
        return self._descent.num_learning

    def parameters(self) -> dict[str, Tensor]:
        """Return a copy of the network's parameters as they are now, by their names."""
        return self._weights.parameters()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The rows of the network as it is now."""
        return self._inner.log_probs(tokens_BT)

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. The row of the network as it is now."""
        return self._inner.step(last_B)

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Learns from the chunk, then moves on."""
        for _ in range(self._epochs):
            self._learn(chunk_BT)
        self._inner.observe(chunk_BT)
        self._descent.advance(chunk_BT.shape[1])

    def restore(self) -> None:
        """See Predictor. The artifact's weights return bit for bit."""
        self._weights.flat_P[:] = self._original_P
        self._weights.fold()
        self._descent.restart()
        self._inner.restore()

    def _learn(self, chunk_BT: Tensor) -> None:
        """Take one step on the mean nats of the chunk's tokens."""
        weights, chunk = self._weights, self._inner.trace(chunk_BT)
        next_R = chunk_BT.to("cpu").numpy().T.ravel()
        counts_R = (chunk.tokens_R != self._bos_id) | (next_R != self._bos_id)
        if not counts_R.any():
            return
        weight_R = counts_R.astype(np.float32) / np.float32(counts_R.sum())
        backward_(
            weights.net, chunk.memory, chunk.trace, weights.params, weights.norm_scale_L,
            chunk.tokens_R, chunk.lanes_R, chunk.positions_R, next_R, weight_R, self._grads,
        )  # fmt: skip
        self._descent.step(weights.flat_P, self._grad_P)
        weights.fold()
        self._inner.forget_rows()


class _Descent:
    """The optimizer: what of the vector learns, how fast, and what the optimizer remembers."""

    def __init__(self, settings: TTTConfig, learning: Mapping[str, slice], size: int) -> None:
        self._settings = settings
        self._rates = [
            (piece, rate_of(settings, role_of(name)), decay_of(settings, role_of(name)))
            for name, piece in learning.items()
        ]
        self.num_learning = sum(piece.stop - piece.start for piece, _, _ in self._rates)
        self._mean_P = np.zeros(size, np.float32)
        self._square_P = np.zeros(size if settings.optimizer == "adam" else 0, np.float32)
        self.restart()

    def restart(self) -> None:
        """Forget every step."""
        self._mean_P[:], self._square_P[:] = 0, 0
        self._power1, self._power2, self._num_tokens = 1.0, 1.0, 0

    def advance(self, num_tokens: int) -> None:
        """Move the schedule on, by tokens of a lane."""
        self._num_tokens += num_tokens

    def step(self, param_P: np.ndarray, grad_P: np.ndarray) -> None:
        """Change the parameters that learn."""
        settings, float32 = self._settings, np.float32
        share, factor = self._share_of_rate(), self._clip_factor(grad_P)
        self._power1 *= settings.beta1
        self._power2 *= settings.beta2
        root = float32(1.0 / math.sqrt(1.0 - self._power2))
        for piece, full_rate, decay in self._rates:
            rate, keep = full_rate * share, float32(1.0 - full_rate * share * decay)
            arrays = param_P[piece], grad_P[piece], self._mean_P[piece]
            if settings.optimizer == "adam":
                adam_(
                    *arrays, self._square_P[piece], factor,
                    float32(settings.beta1), float32(settings.beta2),
                    float32(rate / (1.0 - self._power1)), root, float32(settings.eps), keep,
                )  # fmt: skip
            else:
                sgd_(*arrays, factor, float32(settings.momentum), float32(rate), keep)

    def _share_of_rate(self) -> float:
        settings = self._settings
        if settings.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + cosine(math.pi * min(1.0, self._num_tokens / settings.horizon)))

    def _clip_factor(self, grad_P: np.ndarray) -> np.float32:
        clip = self._settings.clip
        if clip == 0.0:
            return np.float32(1)
        norm = math.sqrt(sum(sum_of_squares(grad_P[piece]) for piece, _, _ in self._rates))
        return np.float32(min(1.0, clip / max(norm, 1e-30)))
