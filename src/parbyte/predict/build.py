"""From an artifact's plain settings to a predictor: the only interpreter of those settings."""

from collections.abc import Mapping
from typing import Any, Protocol

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import NETWORK_STAGES
from parbyte.predict.config import PredictConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.text.tokenizer import Tokenizer


class PredictiveArtifact(Protocol):
    """What of an artifact a predictor needs; pack.artifact.Artifact has it."""

    @property
    def model(self) -> GPT: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def predict(self) -> Mapping[str, Any]: ...


def read_settings(predict: Mapping[str, Any]) -> PredictConfig:
    """Check an artifact's predictor settings; ArtifactError names the bad key."""
    try:
        return read_table(PredictConfig, predict, where="artifact", section="predict")
    except RecipeError as error:
        raise ArtifactError(f"{error}; the artifact is damaged or of another version") from None


def build_predictor(artifact: PredictiveArtifact, *, num_stages: int | None = None) -> Predictor:
    """Build the predictor that an artifact describes: the network, and its stack over it.

    num_stages: build only so many stages of the stack, from the lowest on; None: all.
    Raises ArtifactError if its settings are unknown or out of range, ResourceError if its engine's
    compiler is not installed.
    """
    settings = read_settings(artifact.predict)
    stack = list(settings.stack[:num_stages])
    adapter = stack.pop(0) if stack and stack[0].kind in NETWORK_STAGES else None
    predictor = _build_network(artifact.model, settings, adapter)
    for stage in stack:
        predictor = build_row_stage(stage, predictor, artifact.tokenizer.bos_id)
    return predictor


def _build_network(model: GPT, settings: PredictConfig, adapter: Any) -> Predictor:
    """Return the network under its window law, adapting itself if a stage says so."""
    if settings.engine == "portable":
        from parbyte.predict.portable import PortablePredictor  # it loads the compiler

        return PortablePredictor(model, window=settings.window, stride=settings.stride)
    return NeuralPredictor(model, window=settings.window, stride=settings.stride)


def build_row_stage(stage: Any, inner: Predictor, bos_id: int) -> Predictor:
    """Return one stage over what stands below it."""
    from parbyte.predict.mix import MixPredictor  # they load the compiler
    from parbyte.predict.sse import SsePredictor

    if stage.kind == "sse":
        return SsePredictor(inner, stage, bos_id)
    return MixPredictor(inner, stage, bos_id)
