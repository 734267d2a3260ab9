"""A look between two stages: a predictor that passes everything on and keeps what tokens cost.

Shapes: B lanes, T positions, V vocab.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.predict.predictor import Predictor


class Probe(Predictor):
    """What stands below it, unchanged; it also knows the price of each token that went past.

    seconds: wall-clock seconds spent below, since the probe was made.
    """

    def __init__(self, inner: Predictor, name: str) -> None:
        self.name = name
        self.vocab_size, self.chunk = inner.vocab_size, inner.chunk
        self.is_portable = inner.is_portable
        self.seconds = 0.0
        self.inner = inner
        self._chunk_BT: NDArray[np.float32] | None = None
        self._past: list[NDArray[np.float32]] = []

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays that the stage below holds itself."""
        return sum(_num_bytes(value) for value in vars(self.inner).values())

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor."""
        watch = Stopwatch()
        rows_BTV = self.inner.log_probs(tokens_BT)
        self.seconds += watch.elapsed_s()
        self._chunk_BT = row_prices(rows_BTV, tokens_BT)
        return rows_BTV

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor."""
        return self.inner.step(last_B)

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor."""
        if self._chunk_BT is not None:
            self._past.append(self._chunk_BT)
        self._chunk_BT = None
        watch = Stopwatch()
        self.inner.observe(chunk_BT)
        self.seconds += watch.elapsed_s()

    def note(self, nats_BT: NDArray[np.float32], seconds: float) -> None:
        """Keep the prices of chunks that were walked past the probe, and the seconds they took."""
        self._past.append(nats_BT)
        self.seconds += seconds

    def restore(self) -> None:
        """See Predictor. The prices that were kept stay until they are taken."""
        self.inner.restore()

    def take_nats(self) -> NDArray[np.float32]:
        """Return the prices of all chunks that were observed, float32[B, T] nats, and forget them.

        They are those of `log_probs`; chunks that were walked by `step` have none.
        """
        past, self._past = self._past, []
        return np.concatenate(past, axis=1) if past else np.zeros((0, 0), np.float32)


def row_prices(rows_BTV: Tensor, tokens_BT: Tensor) -> NDArray[np.float32]:
    """Return what each token costs under its row of log-probabilities, nats float32[B, T]."""
    index_BT1 = tokens_BT.to(rows_BTV.device)[:, :, None]
    return -rows_BTV.gather(2, index_BT1)[:, :, 0].cpu().numpy()


def _num_bytes(value: object) -> int:
    """Return the bytes of the arrays in a value, without following other predictors."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, torch.nn.Module):
        return sum(_num_bytes(parameter) for parameter in value.parameters())
    if isinstance(value, list | tuple):
        return sum(map(_num_bytes, value))
    if isinstance(value, dict):
        return sum(map(_num_bytes, value.values()))
    return 0
