"""Finished rows changed and normalised again, in a fixed order: temperatures and a bias.

Rows are log-probabilities in nats. Shapes: R rows, V vocab, J bins of entropy, K temperatures.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, largest, log, total

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_NOTHING = np.float32(-1e4)
"""The logarithm of a share that is zero."""


@compiled(is_inner=True)
def _normalize_(row_V: Floats, power_V: Floats, log_share: np.float32) -> None:
    """Add what makes the row's probabilities sum to the share."""
    top = largest(row_V)
    for v in range(len(row_V)):
        power_V[v] = exp(row_V[v] - top)
    offset = np.float32(np.float64(top) + log(total(power_V))) - log_share
    for v in range(len(row_V)):
        row_V[v] -= offset


@compiled(is_inner=True)
def _entropy(row_V: Floats, product_V: Floats) -> float:
    for v in range(len(row_V)):
        product_V[v] = exp(row_V[v]) * row_V[v]
    return -total(product_V)


@compiled(is_entry=True)
def temper_(rows_RV: Floats, edges_J: Doubles, powers_JK: Floats, shares_JK: Doubles) -> None:
    """Put each row at its bin's temperatures: log sum_k share_k softmax(power_k row).

    edges: one fewer than bins; a row's bin is how many of them its entropy reaches. powers: one
    over the temperatures.
    """
    num_parts, vocab_size = powers_JK.shape[1], rows_RV.shape[1]
    part_KV = np.empty((num_parts, vocab_size), np.float32)
    power_V = np.empty(vocab_size, np.float32)
    log_shares_JK = np.empty(shares_JK.shape, np.float32)
    for j in range(len(shares_JK)):
        for k in range(num_parts):
            share = shares_JK[j, k]
            log_shares_JK[j, k] = np.float32(log(share)) if share > 0.0 else _NOTHING
    for r in range(len(rows_RV)):
        row_V, bin_ = rows_RV[r], 0
        if len(edges_J):
            entropy = _entropy(row_V, power_V)
            while bin_ < len(edges_J) and entropy >= edges_J[bin_]:
                bin_ += 1
        for k in range(num_parts):
            for v in range(vocab_size):
                part_KV[k, v] = row_V[v] * powers_JK[bin_, k]
            _normalize_(part_KV[k], power_V, log_shares_JK[bin_, k])
        for v in range(vocab_size):
            top = part_KV[0, v]
            for k in range(1, num_parts):
                top = part_KV[k, v] if part_KV[k, v] > top else top
            sum_ = 0.0
            for k in range(num_parts):
                sum_ += np.float64(exp(part_KV[k, v] - top))
            row_V[v] = top + np.float32(log(sum_))


@compiled(is_entry=True)
def add_bias_(rows_RV: Floats, bias_V: Floats) -> None:
    """Add a bias to every row and normalise it."""
    power_V = np.empty(rows_RV.shape[1], np.float32)
    for r in range(len(rows_RV)):
        row_V = rows_RV[r]
        for v in range(len(row_V)):
            row_V[v] += bias_V[v]
        _normalize_(row_V, power_V, np.float32(0))


@compiled(is_entry=True)
def sum_probs_(rows_RV: Floats, bias_V: Floats, sums_V: Doubles) -> None:
    """Write the sum over rows of softmax(row + bias)."""
    power_V = np.empty(rows_RV.shape[1], np.float32)
    sums_V[:] = 0.0
    for r in range(len(rows_RV)):
        for v in range(len(bias_V)):
            power_V[v] = rows_RV[r, v] + bias_V[v]
        top = largest(power_V)
        for v in range(len(bias_V)):
            power_V[v] = exp(power_V[v] - top)
        share = 1.0 / total(power_V)
        for v in range(len(bias_V)):
            sums_V[v] += np.float64(power_V[v]) * share
