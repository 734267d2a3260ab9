"""What the codes of one tensor say of themselves: entropy, and the error of a grid that fine."""

import math
from typing import Any

import numpy as np

from parbyte.quant.grid import Codes, points_of, steps_of

_SECOND_MOMENTS = {"uniform": 1.0 / 12.0, "e8": 929.0 / 12960.0}


def code_figures(codes: Codes, num_bytes: int) -> dict[str, Any]:
    """Return entropy and error of one tensor as plain values.

    entropy_bits: order-0 entropy a weight. excess_percent: stored bytes over that entropy; below 0
    the coder found structure. rms_error_percent: of rounding evenly within a cell of the grid, in
    percent of the weights' root mean square; repairs left out, none for a codebook. zeros_percent,
    symbols: what the codes are like.
    """
    values = codes.codes.numpy()
    num_weights = math.prod(codes.shape)
    counts = np.unique(values, return_counts=True)[1]
    entropy = float(-(counts * np.log2(counts / values.size)).sum()) / num_weights
    bits = 8.0 * num_bytes / num_weights
    figures = {
        "entropy_bits": round(entropy, 4),
        "excess_percent": round(100.0 * (bits / entropy - 1.0), 2) if entropy else 0.0,
        "zeros_percent": round(100.0 * float((values == 0).mean()), 2),
        "symbols": len(counts),
    }
    if codes.grid in _SECOND_MOMENTS:
        step = steps_of(codes).double()
        power = float((points_of(codes) * step).square().mean())
        noise = _SECOND_MOMENTS[codes.grid] * float(step.square().mean())
        figures["rms_error_percent"] = round(100.0 * math.sqrt(noise / power), 2) if power else 0.0
    return figures
