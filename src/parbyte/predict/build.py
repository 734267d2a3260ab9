"""From an artifact's plain settings to a predictor: the only interpreter of those settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import NETWORK_STAGES
from parbyte.predict.config import PredictConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import Probe
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


def build_predictor(artifact: PredictiveArtifact) -> Predictor:
    """Build the predictor that an artifact describes: the network, and its stack over it.

    Raises ArtifactError if its settings are unknown or out of range, ResourceError if its engine's
    compiler is not installed.
    """
    settings = read_settings(artifact.predict)
    adapter, stages = _split(settings.stack)
    predictor = _build_network(artifact.model, settings, adapter)
    for stage in stages:
        predictor = _build_row_stage(stage, predictor, artifact.tokenizer)
    return predictor


def build_probed(artifact: PredictiveArtifact) -> tuple[Predictor, list[Probe]]:
    """Build what `build_predictor` builds, with a probe over the network and over each stage.

    Returns the topmost probe, which is the predictor, and all of them from the lowest on.
    Raises what `build_predictor` raises.
    """
    settings = read_settings(artifact.predict)
    adapter, stages = _split(settings.stack)
    name = "network" if adapter is None else f"network, {adapter.kind}"
    probes = [Probe(_build_network(artifact.model, settings, adapter), name)]
    for stage in stages:
        probes.append(Probe(_build_row_stage(stage, probes[-1], artifact.tokenizer), stage.kind))
    return probes[-1], probes


def _split(stack: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Return the stage that adapts the network, or None, and the stages over it."""
    is_adapted = bool(stack) and stack[0].kind in NETWORK_STAGES
    return (stack[0], stack[1:]) if is_adapted else (None, stack)


def _build_network(model: GPT, settings: PredictConfig, adapter: Any) -> Predictor:
    """Return the network under its window law, adapting itself if a stage says so."""
    if settings.engine == "portable":
        from parbyte.predict.portable import PortablePredictor  # it loads the compiler

        if adapter is not None:
            from parbyte.predict.portable_ttt import PortableTTT

            return PortableTTT(model, adapter, window=settings.window, stride=settings.stride)
        return PortablePredictor(model, window=settings.window, stride=settings.stride)
    return NeuralPredictor(model, window=settings.window, stride=settings.stride)


def _build_row_stage(stage: Any, inner: Predictor, tokenizer: Tokenizer) -> Predictor:
    """Return one stage over what stands below it."""
    raise AssertionError(f"no builder for stage '{stage.kind}'")
