"""All that one training holds: made from the recipe, or taken up again from a checkpoint."""

from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from parbyte.base.errors import DataError
from parbyte.base.log import Console
from parbyte.base.settings import to_table
from parbyte.base.world import World, barrier, init_process_group, sum_floats
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.text.batches import Order, TrainBatches
from parbyte.text.manifest import Manifest, load_manifest
from parbyte.text.shards import open_shards
from parbyte.train import checkpoint
from parbyte.train.average import WeightAverage, new_average
from parbyte.train.config import TrainConfig
from parbyte.train.device import pick_device, pick_dtype, set_arithmetic, set_threads
from parbyte.train.objective import Objective
from parbyte.train.optim import Optimizer, build_optimizer
from parbyte.train.rounding import Rounding, required
from parbyte.train.step import StepLoss

_LOSS_MEMORY = 20
# Keys that change what is seen of a run, but not its weights.
_BOOKKEEPING = (
    "device",
    "threads",
    "checkpoint_seconds",
    "log_every_seconds",
    "dev_tokens",
    "dev_every_seconds",
)


@dataclass
class Run:
    """A training between two steps."""

    config: TrainConfig
    world: World
    console: Console
    device: torch.device
    objective: Objective
    rounding: Rounding | None
    optimizer: Optimizer
    average: WeightAverage | None
    loader: TrainBatches
    fingerprint: str
    """Hash of model, recipe and text: what must be equal for a checkpoint to be resumed."""
    checkpoints: Path
    step: int = 0
    """Steps made."""
    resumed_s: float = 0.0
    """Training seconds that earlier processes spent."""
    recent: deque[StepLoss] = field(default_factory=lambda: deque(maxlen=_LOSS_MEMORY))
    dev_bpb: float | None = None
    qat_from: int | None = None
    """First step that saw rounded weights; None before it."""

    @property
    def model(self) -> GPT:
        """The model that is trained."""
        return self.objective.model

    def weights(self) -> dict[str, Tensor]:
        """Return the live weights that count: the averaged ones, if there is an average."""
        if self.average is not None:
            return self.average.weights()
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """Return every live tensor of a checkpoint by name."""
        live = {name: p.detach() for name, p in self.objective.named_parameters()}
        live |= {f"optimizer.{name}": t for name, t in self.optimizer.state().items()}
        if self.average is not None:
            live |= {f"average.{name}": t for name, t in self.average.weights().items()}
        return live

    def recent_losses(self) -> list[float]:
        """Return the losses of the last steps in nats per token, over all ranks; a collective."""
        if not self.recent:
            return []
        nats = torch.stack([loss.nats for loss in self.recent]).tolist()
        weights = [loss.weight for loss in self.recent]
        sums = sum_floats(self.world, nats + weights, self.device.type)
        return [a / b for a, b in zip(sums[: len(nats)], sums[len(nats) :], strict=True)]


def begin_run(
    model_config: ModelConfig,
    config: TrainConfig,
    data_folder: Path,
    checkpoints: Path,
    *,
    world: World,
    console: Console,
    rounding: Rounding | None = None,
) -> Run:
    """Build model, optimizer, average and loader for step 0, and join the ranks.

    Raises RecipeError if the batch does not divide over the ranks or `train.qat` lacks a rounding,
    ResourceError if there is no such device, DataError if model and tokenizer disagree.
    """
    config.micro_rows(world.size)
    rounding = required(rounding, config)
    manifest = load_manifest(data_folder)
    model_config = _fit_to_tokenizer(model_config, manifest)
    device = pick_device(config.device, world)
    set_threads(config.threads, world)
    dtype = pick_dtype(config.dtype, device)
    set_arithmetic(device, dtype)
    init_process_group(world, device.type)
    model = GPT(model_config, seed=config.seed).to(device)
    model.set_compute_dtype(dtype)
    model.set_dropout(config.dropout)
    if model_config.smear == "static" and model.embed.smear is not None:
        torch.nn.init.constant_(model.embed.smear.gate, config.smear_start)
    parameters = dict(model.named_parameters())
    objective = Objective(model, config.mtp_heads, config.mtp_weight)
    return Run(
        config=config,
        world=world,
        console=console,
        device=device,
        objective=objective,
        rounding=rounding,
        optimizer=build_optimizer(objective, objective.roles(), config, world),
        average=new_average(parameters, config),
        loader=_open_loader(data_folder, manifest, config, world),
        fingerprint=_fingerprint(model_config, config, manifest, rounding),
        checkpoints=checkpoints,
    )


def resume_(run: Run) -> None:
    """Take up the newest checkpoint if it is this run's; otherwise drop it and say so."""
    folder = checkpoint.find_checkpoint(run.checkpoints)
    reason = "" if folder is None else _take_up(run, folder)
    if folder is not None and not reason:
        return
    if reason:
        run.console.say(f"training: the checkpoint is not resumed, {reason}; starting anew")
    barrier(run.world)
    if run.world.is_main:
        checkpoint.remove_checkpoints(run.checkpoints)


def save(run: Run, elapsed_s: float, recent_losses: list[float]) -> None:
    """Write a checkpoint of the run as it stands, from rank 0; a collective."""
    run.optimizer.gather_state_()
    if not run.world.is_main:
        return
    progress = checkpoint.Progress(
        fingerprint=run.fingerprint,
        step=run.step,
        elapsed_s=elapsed_s,
        loader=run.loader.state(),
        recent_losses=recent_losses,
        qat_from=run.qat_from,
    )
    checkpoint.save_checkpoint(run.checkpoints, progress, run.tensors())


def _take_up(run: Run, folder: Path) -> str:
    """Return why the checkpoint cannot be resumed; empty if it was."""
    try:
        found = checkpoint.load_progress(folder)
        if found.fingerprint != run.fingerprint:
            return "it belongs to another model, recipe or text"
        checkpoint.restore_(folder, run.tensors())
    except DataError as error:
        return str(error)
    run.loader.restore(found.loader)
    run.step, run.resumed_s, run.qat_from = found.step, found.elapsed_s, found.qat_from
    losses = torch.tensor(found.recent_losses, dtype=torch.float64, device=run.device)
    run.recent.extend(StepLoss(nats, 1.0) for nats in losses)
    run.console.say(f"training: resumed after step {found.step:,}, {found.elapsed_s:.1f} s")
    return ""


def _fit_to_tokenizer(config: ModelConfig, manifest: Manifest) -> ModelConfig:
    if config.vocab_size == 0:
        return replace(config, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id)
    if (config.vocab_size, config.bos_id) != (manifest.vocab_size, manifest.bos_id):
        raise DataError(
            f"the model has {config.vocab_size:,} ids, the prepared data {manifest.vocab_size:,}; "
            "leave 'model.vocab_size' out of the recipe"
        )
    return config


def _open_loader(
    data_folder: Path, manifest: Manifest, config: TrainConfig, world: World
) -> TrainBatches:
    return TrainBatches(
        open_shards(data_folder, "train"),
        bos_id=manifest.bos_id,
        batch_tokens=config.batch_tokens,
        seq_len=config.seq_len,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        order=cast(Order, config.order),
    )


def _fingerprint(
    model_config: ModelConfig, config: TrainConfig, manifest: Manifest, rounding: Rounding | None
) -> str:
    return checkpoint.fingerprint_of(
        {
            "model": to_table(model_config),
            "train": {k: v for k, v in to_table(config).items() if k not in _BOOKKEEPING},
            "grid": None if rounding is None else dict(rounding.settings),
            "tokenizer": manifest.tokenizer_sha256,
            "shards": manifest.splits["train"].shards,
        }
    )
