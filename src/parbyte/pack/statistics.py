"""What the codes of one tensor say of themselves: entropy, and the error of a grid that fine."""

import math
from typing import Any

import numpy as np

from parbyte.quant.grid import Codes


def code_figures(codes: Codes, num_bytes: int) -> dict[str, Any]:
    """Return entropy and error of one tensor as plain values.

    entropy_bits: order-0 entropy a weight. excess_percent: stored bytes over that entropy; below 0
    the coder found structure. rms_error_percent: of rounding evenly within a step, in percent of
    the weights' root mean square. zeros_percent, symbols: what the codes are like.
    """
    values_RC = codes.codes.numpy()
    counts = np.unique(values_RC, return_counts=True)[1]
    share = counts / values_RC.size
    entropy = float(-(share * np.log2(share)).sum())
    scale_R = codes.scale.double().numpy()[..., None]
    power = float(((values_RC * scale_R) ** 2).mean())
    error = math.sqrt(float((scale_R**2).mean()) / 12.0 / power) if power else 0.0
    bits = 8.0 * num_bytes / values_RC.size
    return {
        "entropy_bits": round(entropy, 4),
        "excess_percent": round(100.0 * (bits / entropy - 1.0), 2) if entropy else 0.0,
        "rms_error_percent": round(100.0 * error, 2),
        "zeros_percent": round(100.0 * float((values_RC == 0).mean()), 2),
        "symbols": len(counts),
    }
