"""Which window prices which token: the law of `predict.neural`, laid out for all lanes at once.

The chunks whose context still begins with the lane share one opening window, for a causal network
prices them alike; every later chunk has a window of its own. W = 6, S = 2:

tokens      0 1 2 3 4 5 6 7 8 9 ...
opening     x x x x x x             one window of floor(W / S) S positions, all of them priced
moving          . . . . x x         W positions, the last S of them priced
                    . . . . x x
Shapes: N windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of one width; each prices its last `num_priced` positions, as far as its lane goes.

    lane_N: its lane. start_N: position of its first input within the lane.
    """

    width: int
    num_priced: int
    lane_N: Ints
    start_N: Ints

    def __len__(self) -> int:
        return len(self.lane_N)


def plan_windows(lengths: Sequence[int], window: int, stride: int) -> tuple[Windows, Windows]:
    """Return the opening and the moving windows of lanes of these lengths."""
    lengths_B = np.array(lengths, np.int64)
    num_opening = (window - stride) // stride + 1
    opened = num_opening * stride
    width = int(min(opened, lengths_B.max(initial=1)))
    used_B = np.flatnonzero(lengths_B)
    opening = Windows(width, width, used_B.astype(np.int64), np.zeros(len(used_B), np.int64))
    moving_B = np.maximum(-(-lengths_B // stride) - num_opening, 0)
    lane_N = np.repeat(np.arange(len(lengths_B)), moving_B)
    first_N = np.repeat(np.cumsum(moving_B) - moving_B, moving_B)
    chunk_N = num_opening + np.arange(len(lane_N)) - first_N
    return opening, Windows(window, stride, lane_N, chunk_N * stride - (window - stride))
