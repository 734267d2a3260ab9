"""All lanes through some positions: hidden states, and the log-probabilities of every token.

The lanes are cut into groups, one a thread; a group's rows pass through the network a few at a
time. How they are cut decides nothing about the numbers.
Shapes: B lanes, T positions, V vocab, R rows, D model_dim, N padded vocab.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.forward import forward
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.net import Memory, Net
from parbyte.kernels.portable.numerics import (
    MAX_ROWS,
    exp,
    largest,
    log,
    product,
    tanh,
    total,
)

_ROWS_PER_THREAD = 4
"""Fewer do not repay the waking of another thread."""

_ZERO = np.float32(0)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def walk(
    net: Net, memory: Memory, tokens_BT: Ints, start: int, *, skip: int, threads: int
) -> Floats:
    """Append tokens to the memory; return float32[B, T - skip, V] log-probabilities after them.

    start: positions that the memory holds. skip: positions at the front whose rows are not wanted.
    """
    num_lanes, num_positions = tokens_BT.shape
    out_BTV = np.empty((num_lanes, num_positions - skip, net.num_outputs), np.float32)
    tokens_BT = np.ascontiguousarray(tokens_BT)
    threads = min(threads, num_lanes, max(1, num_lanes * num_positions // _ROWS_PER_THREAD))
    num_groups = max(threads, -(-num_lanes // MAX_ROWS))
    cuts = [group * num_lanes // num_groups for group in range(num_groups + 1)]

    def walk_group_(group: int) -> None:
        lanes = np.arange(cuts[group], cuts[group + 1])
        _walk_lanes_(net, memory, tokens_BT, start, skip, lanes, out_BTV)

    if threads == 1 or num_groups == 1:
        for group in range(num_groups):
            walk_group_(group)
    else:
        others = [
            _pool(threads, os.getpid()).submit(walk_group_, group) for group in range(1, num_groups)
        ]
        walk_group_(0)
        for other in others:
            other.result()
    return out_BTV


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # The kernels run without the interpreter's lock, so plain threads are enough. Threads do not
    # survive a fork: each process has its own.
    return ThreadPoolExecutor(threads, thread_name_prefix="parbyte-portable")


def _walk_lanes_(
    net: Net,
    memory: Memory,
    tokens_BT: Ints,
    start: int,
    skip: int,
    lanes: Ints,
    out_BTV: Floats,
) -> None:
    """Walk with some neighbouring lanes, a few rows at a time, in the order of time."""
    num_lanes, num_positions = len(lanes), tokens_BT.shape[1]
    positions_at_once = max(1, MAX_ROWS // num_lanes)
    for begin in range(0, num_positions, positions_at_once):
        end = min(begin + positions_at_once, num_positions)
        tokens_BP = tokens_BT[lanes[0] : lanes[-1] + 1, begin:end]
        tokens_R, lanes_R, positions_R = rows_of(tokens_BP, start + begin, lanes[0])
        hidden_RD = forward(net, memory, tokens_R, lanes_R, positions_R).out
        if end > skip:
            wanted = slice(max(0, skip - begin) * num_lanes, None)
            times_R = positions_R[wanted] - (start + skip)
            predict_(hidden_RD[wanted], net, lanes_R[wanted], times_R, out_BTV)


def rows_of(tokens_BT: Ints, start: int, first_lane: int = 0) -> tuple[Ints, Ints, Ints]:
    """Return tokens, lanes and positions of neighbouring lanes' rows, in the order of time."""
    num_lanes, num_positions = tokens_BT.shape
    lanes_R = np.tile(np.arange(first_lane, first_lane + num_lanes), num_positions)
    positions_R = np.repeat(np.arange(start, start + num_positions), num_lanes)
    return tokens_BT.T.ravel(), lanes_R, positions_R


@compiled(is_entry=True)
def predict_(hidden_RD: Floats, net: Net, lanes_R: Ints, times_R: Ints, out_BTV: Floats) -> None:
    """Write the log-probabilities that follow from hidden states, each at its lane and time."""
    logits_RN = head_logits(hidden_RD, net)
    vocab_size = net.num_outputs
    weight_V = np.empty(vocab_size, np.float32)
    for r in range(len(hidden_RD)):
        logits_V = logits_RN[r, :vocab_size]
        top = largest(logits_V)
        for v in range(vocab_size):
            weight_V[v] = exp(logits_V[v] - top)
        offset = np.float32(np.float64(top) + log(total(weight_V)))
        out_V = out_BTV[lanes_R[r], times_R[r]]
        for v in range(vocab_size):
            out_V[v] = logits_V[v] - offset


@compiled(is_inner=True)
def head_logits(hidden_RD: Floats, net: Net) -> Floats:
    """Return the logits that follow from hidden states, as wide as the head's blocks."""
    scaled_RD = np.empty_like(hidden_RD)
    for r in range(len(hidden_RD)):
        for i in range(hidden_RD.shape[1]):
            scaled_RD[r, i] = hidden_RD[r, i] * net.logit_scale
    logits_RN = product(scaled_RD, net.head)
    for r in range(len(hidden_RD)):
        logits_V = logits_RN[r, : net.num_outputs]
        for v in range(net.num_outputs):
            logits_V[v] += net.bias[v]
        if net.softcap > _ZERO:
            for v in range(net.num_outputs):
                logits_V[v] = net.softcap * tanh(logits_V[v] / net.softcap)
    return logits_RN
