"""How wide each tensor's steps should be, by what its rounding errors cost the loss.

At high rate the cheapest way to a given size has step^2 * curvature equal for all tensors: one
exchange rate of bits against loss for the whole model (reverse water-filling). The curvature is the
mean squared gradient over single windows (the empirical Fisher information).
"""

import math
from collections import defaultdict

from parbyte.model.gpt import GPT
from parbyte.quant.calibration import Calibration

_WINDOWS = 64
_WIDEST = 4.0


def step_factors(model: GPT, calibration: Calibration) -> dict[str, float]:
    """Return for every parameter by how much its steps, in its own deviations, should be wider.

    The geometric mean over all weights is 1; no factor exceeds 4 or falls below 1/4.
    """
    squares: defaultdict[str, float] = defaultdict(float)
    model.requires_grad_(True)
    for window_T in calibration.windows_WT[:_WINDOWS]:
        model.zero_grad()
        model(window_T[None, :-1].contiguous(), window_T[None, 1:].contiguous()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name] += float(parameter.grad.double().square().mean())
    model.zero_grad()
    logs, total, num_weights = {}, 0.0, 0
    for name, parameter in model.named_parameters():
        variance = float(parameter.detach().double().square().mean())
        if parameter.ndim < 2 or squares[name] * variance == 0.0:
            continue
        logs[name] = -0.5 * math.log(squares[name] * variance)
        total += parameter.numel() * logs[name]
        num_weights += parameter.numel()
    widest = math.log(_WIDEST)
    mean = total / max(1, num_weights)
    return {name: math.exp(max(-widest, min(widest, x - mean))) for name, x in logs.items()}
