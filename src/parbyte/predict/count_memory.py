"""What the stages that count share: how a memory is divided, a text before the first, refusals.

Shapes: B lanes, T positions, N tokens.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ResourceError

HISTORY_SHARE = 16
"""One part in so many of the memory is the history."""


def spread(prior_N: NDArray[np.uint16], num_lanes: int, bos_id: int) -> NDArray[np.int32]:
    """Return a part of the text for each lane, ended by BOS: int32[B, T]; T = 0 without text."""
    length = -(-len(prior_N) // num_lanes)
    lanes_BT = np.full((num_lanes, length + 1 if length else 0), bos_id, np.int32)
    for b, lane_T in enumerate(lanes_BT):
        part_T = prior_N[b * length : (b + 1) * length]
        lane_T[: len(part_T)] = part_T
    return lanes_BT


def too_small(
    kind: str, lanes: int, chunk: int, *, least: int, memory: int, lower: Sequence[str]
) -> ResourceError:
    """Return the refusal of a memory, in bytes, that may not hold one chunk of all lanes.

    lower: at least two keys that would help.
    """
    keys = [f"'{key}'" for key in lower]
    return ResourceError(
        f"stage '{kind}': {lanes} lanes with {chunk} tokens between two looks need "
        f"a memory of {least:,} bytes, it is {memory:,}: raise 'memory', or lower "
        f"{', '.join(keys[:-1])} or {keys[-1]}"
    )


def prior_too_long(kind: str) -> ResourceError:
    """Return the refusal of a text in the artifact that takes more than half of the memory."""
    return ResourceError(
        f"stage '{kind}': the artifact's training text fills more than half of its memory: "
        "raise 'memory', or lower 'pack.prior_bytes'"
    )
