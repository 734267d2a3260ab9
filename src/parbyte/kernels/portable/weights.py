"""Log-probabilities to the coder's weights and whole numbers, in a fixed order; see codec.freqs.

Shapes: A open lanes, V vocab, G groups, M members, N either of them.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, total

_SMALLEST = np.float32(1e-30)
"""Weight of an impossible symbol, so that a group of them still has a sum to divide by."""
Floats = NDArray[np.float32]


@compiled(is_entry=True)
def group_weights_(log_probs_AV: Floats, weights_AGM: Floats, sums_AG: Floats) -> None:
    """Write the tokens' probabilities by groups, and the groups' sums."""
    vocab_size = log_probs_AV.shape[1]
    num_groups, group_size = weights_AGM.shape[1:]
    for a in range(len(log_probs_AV)):
        for g in range(num_groups):
            first = g * group_size
            count = max(0, min(group_size, vocab_size - first))
            for m in range(count, group_size):
                weights_AGM[a, g, m] = _SMALLEST
            for m in range(count):
                prob = exp(log_probs_AV[a, first + m])
                weights_AGM[a, g, m] = _SMALLEST if prob < _SMALLEST else prob
            sums_AG[a, g] = np.float32(total(weights_AGM[a, g]))


@compiled(is_entry=True)
def to_whole_numbers(weights_AN: Floats, free: int) -> Floats:
    """Round rows of weights down to whole numbers; the largest takes what is left of `free`."""
    whole_AN = np.empty_like(weights_AN)
    for a in range(len(weights_AN)):
        scale = free / total(weights_AN[a])
        place, used = 0, 0.0
        for i in range(weights_AN.shape[1]):
            value = np.float64(np.int64(np.float64(weights_AN[a, i]) * scale))
            whole_AN[a, i] = value
            used += value
            place = i if value > whole_AN[a, place] else place
        whole_AN[a, place] += np.float32(free - used)
    return whole_AN
