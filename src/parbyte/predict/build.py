"""From an artifact's plain settings to a predictor: the only interpreter of those settings."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table, to_table
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import (
    NETWORK_STAGES,
    EtlbConfig,
    LoraConfig,
    SlotConfig,
    TemperatureConfig,
    TTTConfig,
)
from parbyte.predict.batch_ngram import BatchNgramPredictor
from parbyte.predict.carried import CarriedPredictor
from parbyte.predict.config import PredictConfig
from parbyte.predict.etlb import EtlbPredictor
from parbyte.predict.expert_config import BytesConfig, NgramConfig, SseConfig
from parbyte.predict.lora import LoraPredictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import Probe
from parbyte.predict.slot import SlotPredictor
from parbyte.predict.temperature import TemperaturePredictor, fit_temperature
from parbyte.predict.ttt import TTTPredictor
from parbyte.text.tokenizer import Tokenizer


class PredictiveArtifact(Protocol):
    """What of an artifact a predictor needs; pack.artifact.Artifact has it."""

    @property
    def model(self) -> GPT: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def predict(self) -> Mapping[str, Any]: ...

    @property
    def prior_N(self) -> NDArray[np.uint16]: ...


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
    return _build(artifact, read_settings(artifact.predict), lambda predictor, _: predictor)


def build_probed(artifact: PredictiveArtifact) -> tuple[Predictor, list[Probe]]:
    """Build what `build_predictor` builds, with a probe over the network and over each stage.

    Returns the topmost probe, which is the predictor, and all of them from the lowest on.
    Raises what `build_predictor` raises.
    """
    probes: list[Probe] = []

    def look(predictor: Predictor, name: str) -> Predictor:
        probes.append(Probe(predictor, name))
        return probes[-1]

    return _build(artifact, read_settings(artifact.predict), look), probes


def fit_stack(artifact: PredictiveArtifact, data_folder: Path) -> dict[str, Any]:
    """Return an artifact's predictor settings with what its stages fit to training text.

    Each stage is fitted over the stack below it. Raises as build_predictor does, and DataError if
    there is no training text.
    """
    settings = read_settings(artifact.predict)
    for place, stage in enumerate(settings.stack):
        if isinstance(stage, TemperatureConfig) and stage.fit_tokens:
            below = replace(settings, stack=settings.stack[:place])
            predictor = _build(artifact, below, lambda predictor, _: predictor)
            fitted = fit_temperature(predictor, stage, data_folder)
            stack = (*settings.stack[:place], fitted, *settings.stack[place + 1 :])
            settings = replace(settings, stack=stack)
    return to_table(settings)


def _build(
    artifact: PredictiveArtifact,
    settings: PredictConfig,
    look: Callable[[Predictor, str], Predictor],
) -> Predictor:
    """Build from the network upwards; each stage stands on what `look` returns of the one below."""
    is_adapted = bool(settings.stack) and settings.stack[0].kind in NETWORK_STAGES
    adapter = settings.stack[0] if is_adapted else None
    name = f"network, {adapter.kind}" if adapter else "network"
    predictor = look(_build_network(artifact.model, settings, adapter), name)
    for stage in settings.stack[is_adapted:]:
        tokenizer, prior_N = artifact.tokenizer, artifact.prior_N
        stage_over = build_row_stage(stage, predictor, tokenizer.bos_id, tokenizer, prior_N)
        predictor = look(stage_over, stage.kind)
    return predictor


def _build_network(model: GPT, settings: PredictConfig, adapter: Any) -> Predictor:
    """Return the network under its window law, adapting itself if a stage says so."""
    walk = {"window": settings.window, "stride": settings.stride}
    if settings.engine == "portable":
        return _build_portable(model, walk, adapter)
    model.set_compute_dtype(getattr(torch, settings.dtype))
    if isinstance(adapter, TTTConfig):
        return TTTPredictor(model, adapter, **walk)
    if isinstance(adapter, LoraConfig):
        return LoraPredictor(model, adapter, **walk)
    if isinstance(adapter, SlotConfig):
        return SlotPredictor(model, adapter, **walk)
    if settings.carry:
        return CarriedPredictor(model, **walk)
    return NeuralPredictor(model, window=settings.window, stride=settings.stride)


def _build_portable(model: GPT, walk: dict[str, int], adapter: TTTConfig | None) -> Predictor:
    """Return the network in portable arithmetic; what loads the compiler is imported here."""
    if adapter is not None:
        from parbyte.predict.portable_ttt import PortableTTT

        return PortableTTT(model, adapter, **walk)
    from parbyte.predict.portable import PortablePredictor

    return PortablePredictor(model, **walk)


def build_row_stage(
    stage: Any,
    inner: Predictor,
    bos_id: int,
    tokenizer: Tokenizer | None = None,
    prior_N: NDArray[np.uint16] | None = None,
) -> Predictor:
    """Return one stage over what stands below it.

    tokenizer: for a stage that looks at bytes. prior_N: tokens that a stage that counts has read.
    """
    if isinstance(stage, EtlbConfig):
        return EtlbPredictor(inner, stage, bos_id)
    if isinstance(stage, TemperatureConfig):
        return TemperaturePredictor(inner, stage)
    if isinstance(stage, NgramConfig) and stage.learn == "chunk":
        return BatchNgramPredictor(inner, stage, bos_id, prior_N)
    from parbyte.predict.bytewise import BytesPredictor  # they load the compiler
    from parbyte.predict.mix import MixPredictor
    from parbyte.predict.sse import SsePredictor

    if isinstance(stage, SseConfig):
        return SsePredictor(inner, stage, bos_id)
    if isinstance(stage, BytesConfig):
        assert tokenizer is not None, "stage 'bytes' needs the tokenizer"
        return BytesPredictor(inner, stage, tokenizer)
    return MixPredictor(inner, stage, bos_id, prior_N)
