"""A bias on the logits that follows the text (ETLB): a few gradient steps after every chunk.

    row'_t = softmax(log row_t + b);   after a chunk of N scored tokens, `steps` times:
    b <- clamp(b - lr (mean of row'_t - one-hot of token t over the chunk), -clamp, clamp)

The published form takes its steps on the whole context of every window, so that a token counts in
each window that holds it; here it counts once, when it has been scored. One bias serves all lanes.
Source: openai/parameter-golf PR 1399. Shapes: B lanes, T positions, N scored tokens, V vocab.
"""

import numpy as np
import torch
from torch import Tensor

from parbyte.predict.adapter_config import EtlbConfig
from parbyte.predict.predictor import Predictor, is_padding


class EtlbPredictor(Predictor):
    """Any predictor's rows, tilted towards the tokens that it has lately underrated."""

    def __init__(self, inner: Predictor, settings: EtlbConfig, bos_id: int) -> None:
        self.vocab_size, self.chunk = inner.vocab_size, inner.chunk
        self.is_portable = inner.is_portable
        self._inner, self._settings, self._bos_id = inner, settings, bos_id
        self._tilted = tilted_portably if self.is_portable else tilted
        self._mean_probs = mean_probs_portably if self.is_portable else mean_probs
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The inner rows under the bias."""
        rows_BTV = self._inner.log_probs(tokens_BT)
        self._priced = (tokens_BT, rows_BTV)
        return self._tilt(rows_BTV)

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. The inner row under the bias."""
        return self._tilt(self._inner.step(last_B))

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Move the bias by the chunk that has been scored."""
        priced, self._priced = self._priced, None
        is_priced = priced is not None and torch.equal(priced[0], chunk_BT)
        rows_BTV = priced[1] if priced and is_priced else self._inner.log_probs(chunk_BT)
        self._inner.observe(chunk_BT)
        chunk_BT = chunk_BT.to(rows_BTV.device)
        if self._last_B1 is None:
            self._last_B1 = torch.full_like(chunk_BT[:, :1], self._bos_id)
        is_scored_BT = ~is_padding(self._last_B1, chunk_BT, self._bos_id)
        self._last_B1 = chunk_BT[:, -1:]
        if bool(is_scored_BT.any()):
            self._learn(rows_BTV[is_scored_BT], chunk_BT[is_scored_BT])

    def restore(self) -> None:
        """See Predictor. No bias."""
        self._inner.restore()
        self._bias_V: Tensor | None = None
        self._last_B1: Tensor | None = None
        self._priced: tuple[Tensor, Tensor] | None = None

    def _tilt(self, rows: Tensor) -> Tensor:
        return rows if self._bias_V is None else self._tilted(rows, self._bias_V)

    def _learn(self, rows_NV: Tensor, tokens_N: Tensor) -> None:
        settings = self._settings
        counts_V = torch.bincount(tokens_N, minlength=self.vocab_size)
        shares_V = counts_V.to(rows_NV.dtype) / len(tokens_N)
        bias_V = rows_NV.new_zeros(self.vocab_size) if self._bias_V is None else self._bias_V
        for _ in range(settings.steps):
            slope_V = self._mean_probs(rows_NV, bias_V) - shares_V
            bias_V = (bias_V - settings.lr * slope_V).clamp(-settings.clamp, settings.clamp)
        self._bias_V = bias_V


def tilted(rows: Tensor, bias_V: Tensor) -> Tensor:
    """Return float32[..., V]: the rows under a bias, normalised."""
    return (rows + bias_V).log_softmax(-1)


def mean_probs(rows_NV: Tensor, bias_V: Tensor) -> Tensor:
    """Return float32[V]: the mean of the rows' probabilities under a bias."""
    return (rows_NV + bias_V).softmax(-1).mean(0)


def tilted_portably(rows: Tensor, bias_V: Tensor) -> Tensor:
    """Compute `tilted` in an order and by functions that are the same on every machine."""
    from parbyte.kernels.portable.rows import add_bias_  # it loads the compiler

    rows_RV = rows.reshape(-1, rows.shape[-1]).numpy().copy()
    add_bias_(rows_RV, bias_V.numpy())
    return torch.from_numpy(rows_RV).view(rows.shape)


def mean_probs_portably(rows_NV: Tensor, bias_V: Tensor) -> Tensor:
    """Compute `mean_probs` in an order and by functions that are the same on every machine."""
    from parbyte.kernels.portable.rows import sum_probs_

    sums_V = np.empty(len(bias_V), np.float64)
    sum_probs_(rows_NV.contiguous().numpy(), bias_V.numpy(), sums_V)
    return torch.from_numpy((sums_V / len(rows_NV)).astype(np.float32))
