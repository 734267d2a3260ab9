"""From an artifact's plain settings to a predictor: the only interpreter of those settings."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table
from parbyte.model.gpt import GPT
from parbyte.predict.config import PredictConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor


class PredictiveArtifact(Protocol):
    """What of an artifact a predictor needs; pack.artifact.Artifact has it."""

    @property
    def model(self) -> GPT: ...

    @property
    def predict(self) -> Mapping[str, Any]: ...


def read_settings(predict: Mapping[str, Any]) -> PredictConfig:
    """Check an artifact's predictor settings; ArtifactError names the bad key."""
    try:
        return read_table(PredictConfig, predict, where="artifact", section="predict")
    except RecipeError as error:
        raise ArtifactError(f"{error}; the artifact is damaged or of another version") from None


def build_predictor(artifact: PredictiveArtifact) -> Predictor:
    """Build the predictor that an artifact describes.

    Raises ArtifactError if its settings are unknown or out of range, ResourceError if its engine's
    compiler is not installed.
    """
    settings = read_settings(artifact.predict)
    if settings.engine == "portable":
        from parbyte.predict.portable import PortablePredictor  # it loads the compiler

        return PortablePredictor(artifact.model, window=settings.window, stride=settings.stride)
    artifact.model.set_compute_dtype(getattr(torch, settings.dtype))
    return NeuralPredictor(artifact.model, window=settings.window, stride=settings.stride)
