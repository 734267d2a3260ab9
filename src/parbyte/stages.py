"""The seven stages of a run: what each depends on, and what it does.

    data -> train -> pack -> score -> compress -> prove -> report

A stage reads files that earlier stages left in the run folder, and leaves files of its own; the
driver (`parbyte.pipeline`) decides whether it must run. Heavy rooms are imported by the stage that
needs them, so that naming the stages costs nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from parbyte.base.clock import Stopwatch
from parbyte.base.files import sha256_bytes, sha256_file, write_bytes, write_json
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.settings import to_table
from parbyte.base.units import bits_per_byte
from parbyte.model.config import ModelConfig
from parbyte.recipe import Recipe
from parbyte.run_folder import (
    ARTIFACT_FILE,
    BITSTREAM_FILE,
    DATA_FOLDER,
    EXPLANATION_FILE,
    HELDOUT_FILE,
    LEDGER_FILE,
    REPORT_FILE,
    RESTORED_FILE,
    SAMPLE_FILE,
    VERDICT_FILE,
    WEIGHTS_FILE,
    Records,
    Run,
)
from parbyte.scorecard import build_scorecard, write_scorecard
from parbyte.scoring import measure_documents, warm_up

TRAIN_FILE = "train.json"
_LOG_FILE = "log.jsonl"
_SAMPLE_TOKENS = 150
_MANIFEST = f"{DATA_FOLDER}/manifest.json"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage left: its files, and the figures that others show."""

    outputs: Sequence[str] = ()
    """Paths relative to the run folder."""
    figures: dict[str, Any] = field(default_factory=dict)
    finished: bool = True
    """False for a result that must not be relied on next time: a proof that failed."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run."""

    name: str
    needs: tuple[str, ...]
    """Files of earlier stages that it reads, or one that holds the hashes of those it reads."""
    depends_on: Callable[[Run, Records], Any]
    """Everything else that its outcome depends on, as plain JSON values."""
    work: Callable[[Run, Records], StageResult]


def _prepare_data(run: Run, records: Records) -> StageResult:
    from parbyte.text.prepare import prepare

    manifest = prepare(run.recipe.text, run.path(DATA_FOLDER), run.console)
    names = ["manifest.json", "tokenizer.bin", "heldout.txt"]
    names += [name for split in manifest.splits.values() for name in split.shards]
    heldout = manifest.splits["heldout"]
    figures = {
        "corpus": manifest.corpus,
        "tokenizer": manifest.tokenizer_kind,
        "vocab_size": manifest.vocab_size,
        "text_bytes": heldout.bytes,
        "heldout_documents": heldout.documents,
        "heldout_tokens": heldout.tokens,
        "train_bytes": manifest.splits["train"].bytes,
        "train_tokens": manifest.splits["train"].tokens,
        "dev_in_training": manifest.dev_in_training,
        "notes": manifest.notes,
    }
    return StageResult(outputs=[f"{DATA_FOLDER}/{name}" for name in names], figures=figures)


def _data_depends_on(run: Run, records: Records) -> Any:
    text = run.recipe.text
    files = [text.corpus, text.heldout, text.tokenizer_file]
    return [to_table(text), [_stamps(Path(name).expanduser()) for name in files if name]]


def _stamps(path: Path) -> list[list[Any]]:
    """Return name, size and time of change of every file of an outside corpus."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stamps = [(file.name, file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stamps]


def _train_model(run: Run, records: Records) -> StageResult:
    from safetensors.torch import save

    from parbyte.quant.view import packer_rounding
    from parbyte.train.loop import train

    shape, data, recipe = _model_shape(run), run.path(DATA_FOLDER), run.recipe
    result = train(
        shape,
        recipe.train,
        data,
        run.folder,
        world=run.world,
        console=run.console,
        rounding=packer_rounding(shape, recipe.quant, data) if recipe.train.qat != "off" else None,
    )
    if not run.world.is_main:
        return StageResult()
    write_bytes(run.path(WEIGHTS_FILE), save(result.weights))
    figures = {
        "steps": result.steps,
        "seconds": result.seconds,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "final_loss": result.final_loss,
        "dev_bpb": result.dev_bpb,
        "qat_from": result.qat_from,
        "peak_memory_bytes": result.peak_memory_bytes,
        "parameters": sum(weight.numel() for weight in result.weights.values()),
        "ranks": run.world.size,
        "hardware": {**describe_machine(), "device": _device_name(run)},
        "versions": describe_versions(),
    }
    write_json(run.path(TRAIN_FILE), {"model": to_table(shape), **figures})
    return StageResult(outputs=[WEIGHTS_FILE, TRAIN_FILE, _LOG_FILE], figures=figures)


def _device_name(run: Run) -> str:
    import torch

    from parbyte.train.device import pick_device

    device = pick_device(run.recipe.train.device, run.world)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _model_shape(run: Run) -> ModelConfig:
    """Return the recipe's model with what the tokenizer decides filled in."""
    from parbyte.text.manifest import load_manifest

    manifest = load_manifest(run.path(DATA_FOLDER))
    return replace(run.recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id)


def _train_depends_on(run: Run, records: Records) -> Any:
    settings = to_table(run.recipe.train)
    # How often a checkpoint is written decides what a kill costs, and nothing else.
    del settings["checkpoint_seconds"]
    # Weights that have seen the packer's grid depend on it.
    grid = run.recipe.quant.grid_settings if run.recipe.train.qat != "off" else None
    return [to_table(run.recipe.model), settings, grid]


def _pack_artifact(run: Run, records: Records) -> StageResult:
    from safetensors.torch import load_file

    from parbyte.pack.artifact import build_artifact, parts_of, read_artifact, with_predict
    from parbyte.pack.prior import cut_prior
    from parbyte.predict.build import fit_stack
    from parbyte.quant.calibration import TrainingText
    from parbyte.quant.heal import Batches
    from parbyte.quant.rounder import Training
    from parbyte.text.prepare import load_run_tokenizer
    from parbyte.text.shards import count_tokens, open_shards

    recipe = run.recipe
    shape, train = _model_shape(run), recipe.train
    batches = Batches(batch_tokens=train.batch_tokens, seq_len=train.seq_len, seed=train.seed)
    training = Training(TrainingText(run.path(DATA_FOLDER)), batches, run.console)
    text = open_shards(run.path(DATA_FOLDER), "train")
    blob = build_artifact(
        load_file(run.path(WEIGHTS_FILE)),
        shape,
        load_run_tokenizer(run.path(DATA_FOLDER)),
        to_table(recipe.predict),
        recipe.quant,
        recipe.pack,
        recipe.track.cap_bytes,
        _artifact_label(recipe),
        token_counts=count_tokens(run.path(DATA_FOLDER), "train", shape.vocab_size),
        training=training,
        prior_N=cut_prior(text, recipe.pack.prior_bytes, recipe.pack.coders),
    )
    # What stands on the network is fitted to it as it is after rounding.
    fitted = fit_stack(read_artifact(blob), run.path(DATA_FOLDER))
    blob = with_predict(blob, fitted, recipe.track.cap_bytes)
    write_bytes(run.path(ARTIFACT_FILE), blob)
    figures = {
        "artifact_bytes": len(blob),
        "artifact_parts": parts_of(blob),
        "learning_seconds": training.seconds,
        "heal_steps": training.healed.steps if training.healed else 0,
    }
    return StageResult(outputs=[ARTIFACT_FILE], figures=figures)


def _pack_depends_on(run: Run, records: Records) -> Any:
    from parbyte.pack.container import VERSION

    recipe = run.recipe
    settings = [to_table(part) for part in (recipe.quant, recipe.pack, recipe.predict)]
    return [settings, recipe.track.cap_bytes, _artifact_label(recipe), VERSION]


def _artifact_label(recipe: Recipe) -> dict[str, str]:
    """Return what the artifact says of its making: a hash of the settings that shaped it."""
    tables = recipe.tables()
    shaping = {name: tables[name] for name in ("text", "model", "train", "quant", "predict")}
    return {"recipe": sha256_bytes(json.dumps(shaping, sort_keys=True).encode())[:16]}


def _score_heldout(run: Run, records: Records) -> StageResult:
    from parbyte.pack.artifact import load_artifact
    from parbyte.score.ledger import write_ledger
    from parbyte.text.prepare import split_documents

    artifact = load_artifact(run.path(ARTIFACT_FILE))
    documents = list(split_documents(run.path(DATA_FOLDER), "heldout", artifact.tokenizer))
    warm_up(artifact, run.recipe.codec)
    watch = Stopwatch()
    ledger, explanation = measure_documents(artifact, documents, run.recipe.codec, run.console)
    seconds = watch.elapsed_s()
    write_ledger(run.path(LEDGER_FILE), ledger)
    write_json(run.path(EXPLANATION_FILE), explanation.to_json())
    figures = {
        "measured_bpb": ledger.bpb,
        "nats": ledger.nats,
        "bytes": ledger.num_bytes,
        "tokens": ledger.num_tokens,
        "seconds": seconds,
        "tokens_per_second": ledger.num_tokens / seconds,
    }
    return StageResult(outputs=[LEDGER_FILE, EXPLANATION_FILE], figures=figures)


def _compress_heldout(run: Run, records: Records) -> StageResult:
    from parbyte.codec.compress import compress_documents
    from parbyte.pack.artifact import load_artifact
    from parbyte.text.prepare import split_documents

    artifact = load_artifact(run.path(ARTIFACT_FILE))
    tokenizer = artifact.tokenizer
    ids = split_documents(run.path(DATA_FOLDER), "heldout", tokenizer)
    documents = (tokenizer.decode(document) for document in ids)
    out = run.path(BITSTREAM_FILE)
    result = compress_documents(artifact, run.recipe.codec, documents, out, run.console)
    figures = {
        "coded_bpb": result.bpb,
        "ideal_bpb": bits_per_byte(result.nats, result.text_bytes),
        "bitstream_bytes": result.bitstream_bytes,
        "bytes": result.text_bytes,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens / result.seconds,
        "lanes": run.recipe.codec.lanes,
        "decodes": result.decodes,
    }
    return StageResult(outputs=[BITSTREAM_FILE], figures=figures)


def _prove_heldout(run: Run, records: Records) -> StageResult:
    from parbyte.audit.proof import prove
    from parbyte.text.manifest import load_manifest

    heldout = load_manifest(run.path(DATA_FOLDER)).splits["heldout"]
    # An earlier proof's text would be taken for this one's, should this one fail.
    run.path(RESTORED_FILE).unlink(missing_ok=True)
    result = prove(
        run.path(ARTIFACT_FILE),
        run.path(BITSTREAM_FILE),
        expected_sha256=heldout.sha256_text,
        expected_bytes=heldout.bytes,
        original=run.path(HELDOUT_FILE),
        keep=run.path(RESTORED_FILE),
        quiet=run.console.quiet,
    )
    outputs = [RESTORED_FILE] if result.proven else []
    return StageResult(outputs=outputs, figures=asdict(result), finished=result.proven)


def _write_report(run: Run, records: Records) -> StageResult:
    from parbyte.report.page import write_report

    write_scorecard(run, records)
    write_bytes(run.path(SAMPLE_FILE), _sample(run))
    write_report(run.folder, run.console)
    return StageResult(outputs=[REPORT_FILE, SAMPLE_FILE])


def _sample(run: Run) -> bytes:
    """Return text that the artifact's model finds likely."""
    from parbyte.pack.artifact import load_artifact
    from parbyte.predict.build import build_predictor
    from parbyte.predict.sample import generate

    artifact = load_artifact(run.path(ARTIFACT_FILE))
    predictor = build_predictor(artifact)
    pieces = generate(predictor, artifact.tokenizer, b"", _SAMPLE_TOKENS, temperature=0.8)
    return b"".join(pieces)


def _report_depends_on(run: Run, records: Records) -> Any:
    verdict = run.path(VERDICT_FILE)
    audited = sha256_file(verdict) if verdict.is_file() else None
    return [run.recipe.sha256(), build_scorecard(run, records), audited]


STAGES = (
    Stage(name="data", needs=(), depends_on=_data_depends_on, work=_prepare_data),
    Stage(
        name="train",
        needs=(_MANIFEST,),
        depends_on=_train_depends_on,
        work=_train_model,
    ),
    Stage(
        name="pack",
        needs=(_MANIFEST, WEIGHTS_FILE),
        depends_on=_pack_depends_on,
        work=_pack_artifact,
    ),
    Stage(
        name="score",
        needs=(_MANIFEST, ARTIFACT_FILE),
        depends_on=lambda run, _: to_table(run.recipe.codec),
        work=_score_heldout,
    ),
    Stage(
        name="compress",
        needs=(_MANIFEST, ARTIFACT_FILE),
        depends_on=lambda run, _: to_table(run.recipe.codec),
        work=_compress_heldout,
    ),
    Stage(
        name="prove",
        needs=(_MANIFEST, ARTIFACT_FILE, BITSTREAM_FILE),
        depends_on=lambda run, _: None,
        work=_prove_heldout,
    ),
    Stage(
        name="report",
        needs=(
            _MANIFEST,
            LEDGER_FILE,
            EXPLANATION_FILE,
            _LOG_FILE,
            ARTIFACT_FILE,
            BITSTREAM_FILE,
        ),
        depends_on=_report_depends_on,
        work=_write_report,
    ),
)
