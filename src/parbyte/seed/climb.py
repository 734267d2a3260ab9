"""The driver: rung after rung, each stored as it ends; a ladder that was interrupted goes on.

A rung is done again when anything that its figures depend on has changed: the weights, the text,
its settings, the package.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import parbyte
from parbyte.audit.subject import AuditConfig
from parbyte.base.clock import Stopwatch
from parbyte.base.files import read_json, sha256_bytes, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.codec.conditions import coding_arithmetic
from parbyte.codec.config import CodecConfig
from parbyte.predict.build import read_settings
from parbyte.predict.config import PredictConfig
from parbyte.seed.material import Excerpt, Networks, load_networks, require_length, take_excerpt
from parbyte.seed.rates import SHARES, Learning, choose_learning
from parbyte.seed.rungs import RUNGS, Ladder, Rung, walk
from parbyte.seed.scale import Scale, contest_scale, stride_of
from parbyte.seed.trial import put_on_trial
from parbyte.seed.twin import try_twin
from parbyte.stages import TRAIN_FILE
from parbyte.train.device import pick_device

AUDIT = AuditConfig(
    positions=4, sum_positions=1, exact_vocab=256, likely=64, drawn=64, noise_tokens=4096
)
LADDER_FILE = "ladder.json"
RATES_FILE = "rates.json"
_RUNGS_FOLDER = "rungs"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Climb:
    """One ladder to be climbed: a run, a text, a folder, and who is told."""

    run: Path
    out: Path
    console: Console
    codec: CodecConfig
    text: Path | None = None
    limit: int = 1 << 14
    """Bytes of the text that every rung is about."""
    audit: AuditConfig = field(default_factory=lambda: AUDIT)

    @cached_property
    def networks(self) -> Networks:
        """The run's networks."""
        return load_networks(self.run)

    @cached_property
    def excerpt(self) -> Excerpt:
        """The text."""
        tokenizer = self.networks.artifact.tokenizer
        return take_excerpt(self.run, self.text, self.limit, tokenizer)

    @cached_property
    def settings(self) -> PredictConfig:
        """How the artifact predicts."""
        return read_settings(self.networks.artifact.predict)

    @property
    def window(self) -> int:
        """The network's window, in tokens."""
        return self.settings.window

    @property
    def scale(self) -> Scale:
        """PR 1430's settings at this window and for this text."""
        num_layers = self.networks.artifact.model.config.num_layers
        return contest_scale(self.window, num_layers, len(self.excerpt.stream_N))

    @cached_property
    def learning(self) -> Learning:
        """How the twins' `ttt` learns: chosen once, then stored."""
        artifact, codec, path = self.networks.artifact, _one_lane(self.codec), self.out / RATES_FILE
        arithmetic = {"engine": self.settings.engine, "dtype": self.settings.dtype}
        predict = {**arithmetic, **walk(self.window, stride_of(self.window))}
        inputs = _sha256([parbyte.__version__, artifact.sha256, predict, SHARES, asdict(codec)])
        stored = _stored(path, inputs)
        if stored is None:
            self.console.say("ttt: its rate is chosen on development text")
            stored = asdict(choose_learning(self.run, artifact, predict, codec))
            _store(path, inputs, stored)
        return Learning(**stored)


def climb(plan: Climb) -> dict[str, Any]:
    """Do every rung that is not stored yet, write the ladder's JSON and return it.

    Raises ParbyteError; an interrupt loses the running rung and nothing else.
    """
    require_length(plan.excerpt, plan.window)
    ladder = _ladder(plan)
    results = []
    for place, rung in enumerate(RUNGS):
        path = plan.out / _RUNGS_FOLDER / f"{place}-{slug(rung)}.json"
        inputs = _inputs_sha256(plan, rung)
        stored = _stored(path, inputs)
        if stored is not None:
            plan.console.say(f"{rung.name}: finished before, skipped")
        else:
            plan.console.say(f"{rung.name}: begins")
            stored = _do(plan, ladder, rung)
            _store(path, inputs, stored)
        results.append(stored)
    result = _gather(plan, results)
    write_json(plan.out / LADDER_FILE, result)
    return result


def slug(rung: Rung) -> str:
    """Return a rung's name as a file's."""
    return rung.name.strip("+ ").lower()


def _ladder(plan: Climb) -> Ladder:
    networks, device = plan.networks, _device(plan)
    models = (networks.float_model.to(device), networks.artifact.model.to(device))
    for model in models:
        model.set_compute_dtype(getattr(torch, plan.settings.dtype))
    stream_N = torch.from_numpy(plan.excerpt.stream_N.astype(np.int64)).to(device)
    return Ladder(*models, stream_N, plan.scale)


def _device(plan: Climb) -> torch.device:
    is_portable = plan.settings.engine == "portable"
    return pick_device("cpu" if is_portable else plan.codec.device, World())


def _gpu(plan: Climb) -> str:
    device = _device(plan)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _do(plan: Climb, ladder: Ladder, rung: Rung) -> dict[str, Any]:
    """Return everything about one rung as plain values."""
    networks, excerpt, console = plan.networks, plan.excerpt, plan.console
    watch = Stopwatch()
    with coding_arithmetic(plan.codec.threads):
        claimed = rung.claim(ladder).rate(networks.artifact.tokenizer.byte_counts(excerpt.stream_N))
        console.say(f"{rung.name}: {claimed:.4f}; {watch.elapsed_s():.0f} s so far, its audit next")
        model = ladder.model if rung.is_packed else ladder.float_model
        trial = put_on_trial(rung, model, excerpt.stream_N, plan.window, plan.audit)
    console.say(f"{rung.name}: {trial.verdict}; {watch.elapsed_s():.0f} s so far, its twin next")
    twin = try_twin(
        slug(rung),
        networks.artifact_blob if rung.is_packed else networks.float_blob(),
        _twin_settings(plan, rung),
        excerpt,
        _one_lane(plan.codec),
        plan.audit,
        plan.out / _RUNGS_FOLDER,
    )
    console.say(f"{rung.name}: {twin.measured_bpb:.4f} bpb (measured), {twin.verdict}")
    return {
        "name": rung.name,
        "does": rung.does,
        **claimed.to_json(),
        "verdict": trial.verdict,
        "conditions": trial.conditions,
        "escaped": trial.escaped,
        "is_right": trial.is_right,
        "evidence": trial.evidence,
        "audited_tokens": trial.audited_tokens,
        "repair": rung.repair,
        "measured_bpb": twin.measured_bpb,
        "coded_bpb": twin.coded_bpb,
        "twin_verdict": twin.verdict,
        "twin_findings": twin.findings,
        "bitstream_bytes": twin.bitstream_bytes,
        "artifact_bytes": twin.artifact_bytes,
        "seconds": watch.elapsed_s(),
    }


def _twin_settings(plan: Climb, rung: Rung) -> dict[str, Any]:
    """Return the twin's whole predictor settings; SLOT has only one engine."""
    table = rung.twin(plan.window, plan.learning.stage)
    needs_torch = any(stage["kind"] == "slot" for stage in table["stack"])
    engine = "torch" if needs_torch else plan.settings.engine
    return {"engine": engine, "dtype": plan.settings.dtype, **table}


def _one_lane(codec: CodecConfig) -> CodecConfig:
    """Return how twins are coded: one stream, as the claims read it."""
    return replace(codec, lanes=1, turns=0, frame_bytes=CodecConfig().frame_bytes)


def _inputs_sha256(plan: Climb, rung: Rung) -> str:
    networks, scale = plan.networks, plan.scale
    inputs = [
        parbyte.__version__,
        rung.name,
        networks.artifact.sha256,
        networks.weights_sha256,
        plan.excerpt.to_json(),
        asdict(scale),
        asdict(plan.audit),
        asdict(_one_lane(plan.codec)),
        _twin_settings(plan, rung),
    ]
    return _sha256(inputs)


def _sha256(inputs: list[Any]) -> str:
    return sha256_bytes(json.dumps(inputs, sort_keys=True).encode())


def _store(path: Path, inputs: str, found: dict[str, Any]) -> None:
    write_json(path, {"inputs": inputs, "found": found})


def _stored(path: Path, inputs: str) -> dict[str, Any] | None:
    """Return what was found with the same inputs before."""
    if not path.is_file():
        return None
    table = read_json(path)
    is_same = isinstance(table, Mapping) and table.get("inputs") == inputs
    return dict(table["found"]) if is_same else None


def _gather(plan: Climb, rungs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ladder as one JSON value."""
    claimed, honest = rungs[-1]["claimed_bpb"], min(rung["measured_bpb"] for rung in rungs[1:])
    networks, scale = plan.networks, plan.scale
    return {
        "format": _FORMAT,
        "run": plan.run.name,
        "text": plan.excerpt.to_json(),
        "artifact_sha256": networks.artifact.sha256,
        "train_steps": read_json(plan.run / TRAIN_FILE)["steps"],
        "parameters": sum(p.numel() for p in networks.float_model.parameters()),
        "vocab_size": networks.artifact.model.config.vocab_size,
        "rungs": rungs,
        "ttt": asdict(plan.learning),
        "claimed_below_twin_percent": 100 * (1 - claimed / rungs[-1]["measured_bpb"]),
        "claimed_below_best_measured_percent": 100 * (1 - claimed / honest),
        "all_convicted": all(rung["is_right"] for rung in rungs),
        "all_certified": all(rung["twin_verdict"] == "certified" for rung in rungs),
        "settings": {**asdict(scale), "audit": asdict(plan.audit)},
        "seconds": sum(rung["seconds"] for rung in rungs),
        "machine": {**describe_machine(), "threads": plan.codec.threads, "gpu": _gpu(plan)},
        "versions": describe_versions(),
    }
