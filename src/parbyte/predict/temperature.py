"""Temperatures from training text: constants of the artifact that sharpen or flatten its rows.

    row' = sum_k w_jk softmax(log row / T_jk) / sum_k w_jk,  j = the bin of the row's entropy

A row's bin is a function of the row alone, so the law stays causal; a mixture of normalised rows is
normalised. Source: Guo et al. 2017, arXiv:1706.04599 (temperature); openai/parameter-golf PR 1924
(fitted on training tokens and paid for). Shapes: B lanes, T positions, N tokens, V vocab, J bins,
K temperatures of a bin.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from parbyte.base.errors import DataError
from parbyte.predict.adapter_config import TemperatureConfig
from parbyte.predict.predictor import Predictor
from parbyte.text.shards import open_shards

_MAX_ITERATIONS = 60
_FIT_ROWS = 1024
_DECIMALS = 5


class TemperaturePredictor(Predictor):
    """Any predictor's rows at the artifact's temperatures."""

    def __init__(self, inner: Predictor, settings: TemperatureConfig) -> None:
        self.vocab_size, self.chunk = inner.vocab_size, inner.chunk
        self.is_portable = inner.is_portable
        self._inner, self._settings = inner, settings
        self._temper = tempered_portably if self.is_portable else tempered

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The inner rows, each at its bin's temperatures."""
        return self._temper(self._inner.log_probs(tokens_BT), self._settings)

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. The inner row at its bin's temperatures."""
        return self._temper(self._inner.step(last_B), self._settings)

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Nothing is learned here."""
        self._inner.observe(chunk_BT)

    def restore(self) -> None:
        """See Predictor. There is nothing of its own to forget."""
        self._inner.restore()


def tempered(rows: Tensor, settings: TemperatureConfig) -> Tensor:
    """Return float32[..., V]: the rows at their bins' temperatures."""
    num_bins = len(settings.edges) + 1
    temperatures_JK = rows.new_tensor(settings.temperatures).view(num_bins, -1)
    weights_JK = rows.new_tensor(settings.weights or [1.0] * len(settings.temperatures))
    weights_JK = weights_JK.view(num_bins, -1)
    shares_JK = weights_JK / weights_JK.sum(1, keepdim=True)
    return _mixture(rows, bins_of(rows, settings), 1.0 / temperatures_JK, shares_JK.log())


def tempered_portably(rows: Tensor, settings: TemperatureConfig) -> Tensor:
    """Compute `tempered` in an order and by functions that are the same on every machine."""
    from parbyte.kernels.portable.rows import temper_  # it loads the compiler

    num_bins = len(settings.edges) + 1
    temperatures_JK = np.array(settings.temperatures, np.float64).reshape(num_bins, -1)
    weights_JK = np.array(settings.weights or [1.0] * len(settings.temperatures), np.float64)
    weights_JK = weights_JK.reshape(num_bins, -1)
    rows_RV = rows.reshape(-1, rows.shape[-1]).numpy().copy()
    temper_(
        rows_RV,
        np.array(settings.edges, np.float64),
        (1.0 / temperatures_JK).astype(np.float32),
        weights_JK / weights_JK.sum(1, keepdims=True),
    )
    return torch.from_numpy(rows_RV).view(rows.shape)


def bins_of(rows: Tensor, settings: TemperatureConfig) -> Tensor:
    """Return int64[...]: how many edges the entropy of each row reaches, in nats."""
    entropies = -(rows.exp() * rows).nan_to_num(0.0).sum(-1)
    return torch.bucketize(entropies, rows.new_tensor(settings.edges), right=True)


def _mixture(rows: Tensor, bins: Tensor, powers_JK: Tensor, log_weights_JK: Tensor) -> Tensor:
    parts = []
    for power_J, log_weight_J in zip(powers_JK.unbind(1), log_weights_JK.unbind(1), strict=True):
        part = (rows * power_J[bins].unsqueeze(-1)).log_softmax(-1)
        parts.append(part + log_weight_J[bins].unsqueeze(-1))
    return parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), dim=0)


def fit_temperature(
    inner: Predictor, settings: TemperatureConfig, data_folder: Path
) -> TemperatureConfig:
    """Return the settings with temperatures and weights that price training text best.

    It takes a folder and opens the training split itself: no other text can reach it. The first
    `fit_tokens` tokens of the split are one lane under `inner`, what stands below the stage; each
    bin then minimises its nats by L-BFGS in float64 from the given temperatures. A bin without
    tokens keeps them. Raises DataError if there is no training text.
    """
    stream = open_shards(data_folder, "train")
    ids_N = torch.from_numpy(stream[: settings.fit_tokens + 1].astype("int64"))[1:]
    if not len(ids_N):
        raise DataError(f"'{data_folder}' holds no training text to fit predict.stack to")
    rows_NV = _rows(inner, ids_N)
    bins_N, num_bins = bins_of(rows_NV, settings), len(settings.edges) + 1
    size = len(settings.temperatures) // num_bins
    temperatures, weights = [], []
    for place in range(num_bins):
        given = settings.temperatures[place * size : (place + 1) * size]
        chosen_N = bins_N == place
        fitted = _fit_bin(rows_NV[chosen_N], ids_N[chosen_N].to(rows_NV.device), given)
        temperatures += fitted[0]
        weights += fitted[1]
    return replace(settings, temperatures=tuple(temperatures), weights=tuple(weights))


def _rows(inner: Predictor, ids_N: Tensor) -> Tensor:
    inner.restore()
    parts = []
    for chunk_1T in ids_N[None].split(inner.chunk, dim=1):
        parts.append(inner.log_probs(chunk_1T)[0])
        inner.observe(chunk_1T)
    inner.restore()
    return torch.cat(parts)


def _fit_bin(rows_NV: Tensor, ids_N: Tensor, given: tuple[float, ...]) -> list[list[float]]:
    """Return temperatures, within 0.05 .. 20, and weights of one bin: every digit is paid for."""
    if not len(ids_N):
        return [list(given), [1.0] * len(given)]
    device = rows_NV.device
    log_powers_K = -torch.tensor(given, dtype=torch.float64, device=device).log()
    scores_K = torch.zeros_like(log_powers_K)
    fitted = [log_powers_K.requires_grad_(True), scores_K.requires_grad_(True)]
    rule = torch.optim.LBFGS(fitted, max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe")
    zeros_N = torch.zeros_like(ids_N)

    def loss() -> float:
        rule.zero_grad()
        total = 0.0
        for rows, ids, bins in zip(
            rows_NV.split(_FIT_ROWS), ids_N.split(_FIT_ROWS), zeros_N.split(_FIT_ROWS), strict=True
        ):
            powers_1K = log_powers_K.exp()[None]
            mixed = _mixture(rows.double(), bins, powers_1K, scores_K.log_softmax(0)[None])
            value = -mixed.gather(1, ids[:, None]).sum() / len(ids_N)
            value.backward()
            total += float(value.detach())
        return total

    with torch.inference_mode(False), torch.enable_grad():
        rule.step(loss)
    temperatures_K = (-log_powers_K.detach()).exp().clamp(0.05, 20.0)
    weights_K = scores_K.detach().softmax(0)
    return [
        [round(x, _DECIMALS) for x in values.tolist()] for values in (temperatures_K, weights_K)
    ]
