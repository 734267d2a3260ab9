"""One model's weights, ready to be quantised again and again under different settings.

What does not depend on the step (Hessians and their factors, healed weights) is made once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import RecipeError
from parbyte.base.log import Console
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role
from parbyte.quant.calibration import (
    Calibration,
    TrainingText,
    generated_windows,
    random_windows,
    training_windows,
)
from parbyte.quant.config import QuantConfig
from parbyte.quant.eggroll import roll
from parbyte.quant.gptq import Factor, factorize
from parbyte.quant.grid import Codes
from parbyte.quant.heal import Batches, Healed, heal
from parbyte.quant.hessians import Hessians, collect_hessians
from parbyte.quant.quantize import Knowledge, Quantized, check_columns, quantize_weights
from parbyte.quant.sensitivity import step_factors


@dataclass
class Training:
    """What quantisation may learn from, and where it says what it did."""

    text: TrainingText
    batches: Batches
    console: Console
    seconds: float = 0.0
    """Spent so far on learning from the training text; a track counts them as training."""
    healed: Healed | None = None
    """What healing did, once it has."""


class Rounder:
    """Weights with all that their rounding depends on besides the steps."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        roles: Mapping[str, Role],
        model_config: ModelConfig,
        token_counts: Tensor | None,
        training: Training | None,
        config: QuantConfig,
    ) -> None:
        """Collect and factor the Hessians if the recipe wants GPTQ.

        Raises RecipeError if GPTQ or healing is wanted and there is no text to learn from, or if
        columns cannot be taken together as `config` says.
        """
        if training is None and (config.heals or config.calibrates):
            raise RecipeError("this [quant] learns from the training text, and none is at hand")
        check_columns(weights, roles, config)
        self.weights = dict(weights)
        self.roles = roles
        self._model_config = model_config
        self._training = training
        self._known = Knowledge(token_counts=token_counts)
        self._windows: Calibration | None = None
        if training is not None and config.calibrates:
            self._calibrate(training, config)

    def quantize(self, config: QuantConfig) -> dict[str, Quantized]:
        """Return codes and float16 tensors of all weights."""
        return quantize_weights(self.weights, self.roles, config, self._known)

    def roll(self, quantized: Mapping[str, Quantized], config: QuantConfig) -> dict[str, Quantized]:
        """Return the same with the changes of codes that lower the loss; see quant.eggroll."""
        assert self._training is not None and self._windows is not None
        watch = Stopwatch()
        rolled, kept = roll(self._model_config, quantized, self._windows, config.eggroll_trials)
        if config.calibration == "train":
            self._training.seconds += watch.elapsed_s()
        say = self._training.console.say
        say(f"eggroll: {kept:,} of {config.eggroll_trials:,} changes of codes kept")
        return rolled

    def inputs(self) -> dict[str, Tensor]:
        """Return the mean square of what each column is multiplied with, by matrix, if known."""
        return {name: f.hessian_CC.diagonal() for name, f in self._known.factors.items()}

    def heal_(self, config: QuantConfig) -> None:
        """Train the weights on through the grids of `config`, which stay from here on.

        GPTQ has had its say by then: healed weights are rounded each for itself.
        """
        assert self._training is not None
        quantized = self.quantize(config)
        healed = heal(
            self._model_config,
            self.weights,
            quantized,
            self._training.text,
            self._training.batches,
            config,
            self._training.console,
        )
        self._training.seconds += healed.seconds
        self.weights, self._training.healed = healed.weights, healed
        scales = {n: item.scale for n, item in quantized.items() if isinstance(item, Codes)}
        self._known = replace(self._known, factors={}, scales=scales)

    def _calibrate(self, training: Training, config: QuantConfig) -> None:
        model = GPT(self._model_config, seed=None).eval()
        model.load_state_dict(self.weights)
        watch = Stopwatch()
        self._windows = windows = _windows(model, training, config)
        say = training.console.say
        say(f"quant: calibrated on {windows.windows_WT.numel():,} tokens of {windows.source}")
        if config.allocation == "sensitivity":
            self._known = replace(self._known, step_factors=step_factors(model, windows))
        hessians = collect_hessians(model, windows) if config.needs_inputs else {}
        if config.calibration == "train":
            training.seconds += watch.elapsed_s()
        self._known = replace(self._known, factors=_factorize_all(hessians, config, say))


def _factorize_all(
    hessians: Hessians, config: QuantConfig, say: Callable[[str], None]
) -> dict[str, Factor]:
    return {
        name: factorize(
            hessian,
            config.damping,
            act_order=config.act_order,
            width=config.grid_width,
            warn=lambda text, name=name: say(f"gptq: '{name}': {text}"),
        )
        for name, hessian in hessians.items()
    }


def _windows(model: GPT, training: Training, config: QuantConfig) -> Calibration:
    num_tokens, batches = config.calibration_tokens, training.batches
    if config.calibration == "train":
        return training_windows(training.text, num_tokens, batches.seq_len)
    if config.calibration == "self":
        return generated_windows(model, num_tokens, batches.seq_len, batches.seed)
    vocab_size = model.config.vocab_size
    return random_windows(vocab_size, num_tokens, batches.seq_len, batches.seed)
