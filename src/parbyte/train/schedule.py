"""Rates as pure functions of the step and of progress = elapsed / budget, in [0, 1].

The factor on every learning rate rises linearly over `warmup_steps` steps to 1, stays there until
progress 1 - warmdown, and falls linearly to `min_lr` at progress 1:

    factor 1  |      __________________
              |    .                    .
              |  .                        .
       min_lr |.                            .
              +---|--------------------|----|---> progress
               warm-up            1-warmdown 1
"""

from parbyte.train.config import TrainConfig


def lr_factor(config: TrainConfig, step: int, progress: float) -> float:
    """Return what every learning rate is multiplied by at this step.

    step: counted from 0. progress: fraction of the budget that is spent before the step.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return warm * _warmdown_factor(config, progress)


def momentum_at(config: TrainConfig, step: int) -> float:
    """Return Muon's momentum at this step: linear from momentum_start to momentum."""
    if step >= config.momentum_warmup_steps:
        return config.momentum
    share = step / config.momentum_warmup_steps
    return config.momentum_start + share * (config.momentum - config.momentum_start)


def is_warming_down(config: TrainConfig, progress: float) -> bool:
    """Say whether the rates are falling at this progress."""
    return min(progress, 1.0) > 1.0 - config.warmdown


def is_looping(config: TrainConfig, progress: float) -> bool:
    """Say whether the layers of `model.loop` are repeated at this progress."""
    return progress >= config.loop_at


def qat_hardness(config: TrainConfig, progress: float) -> float | None:
    """Return how hard weights are rounded at this progress; None while they are exact.

    It rises from 0, where the falling rates pass `qat_below`, towards 1, where they would be 0.
    """
    factor = _warmdown_factor(config, progress)
    is_late = config.qat != "off" and factor < config.qat_below
    return 1.0 - factor / config.qat_below if is_late else None


def _warmdown_factor(config: TrainConfig, progress: float) -> float:
    if not is_warming_down(config, progress):
        return 1.0
    left = max(0.0, 1.0 - progress) / config.warmdown
    return config.min_lr + (1.0 - config.min_lr) * left
