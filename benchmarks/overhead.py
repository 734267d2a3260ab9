"""Compare the speed of `train()` with a bare forward + backward + optimizer loop, same model.

    python benchmarks/overhead.py --recipe tiny --steps 60 --rounds 3

Rounds alternate between the two loops, so that other work on the machine meets both alike. The
bare loop has its batches in memory and no clock, schedule, average, log or checkpoint; `train()`
has all of them, at the recipe's settings. The bar is 95 %.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

import torch

from parbyte.base.clock import now_s
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.recipe import load_recipe
from parbyte.text.batches import TrainBatches
from parbyte.text.manifest import load_manifest
from parbyte.text.prepare import prepare
from parbyte.text.shards import open_shards
from parbyte.train.config import TrainConfig
from parbyte.train.device import pick_device, pick_dtype, set_arithmetic, set_threads, synchronize
from parbyte.train.loop import train
from parbyte.train.optim import build_optimizer

RESULT = Path(__file__).parent / "results" / "overhead.json"
BAR = 0.95
WARMUP_STEPS = 5


def main() -> None:
    """Run both loops in turn, print the ratio and store it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--data", type=Path, help="a prepared folder; else the recipe's text")
    parser.add_argument("--steps", type=int, default=60, help="steps of one loop in one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    config = dataclasses.replace(
        recipe.train, steps=args.steps, dev_tokens=0, dev_every_seconds=0.0, threads=args.threads
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = args.data or Path(scratch) / "data"
        if args.data is None:
            prepare(recipe.text, data, Console(quiet=True))
        rounds = [measure_round(recipe.model, config, data) for _ in range(args.rounds)]
    bare = statistics.median(pair[0] for pair in rounds)
    whole = statistics.median(pair[1] for pair in rounds)
    ratio = statistics.median(pair[1] / pair[0] for pair in rounds)
    print(f"bare loop {bare:,.0f} tokens/s, train() {whole:,.0f} tokens/s")
    verdict = "kept" if ratio >= BAR else "missed"
    print(f"train() runs at {100 * ratio:.1f} % of the bare loop; bar {100 * BAR:.0f} %: {verdict}")
    figures = {
        "recipe": args.recipe,
        "steps": args.steps,
        "rounds": [{"bare": a, "train": b, "ratio": b / a} for a, b in rounds],
        "ratio": ratio,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    write_json(args.json, figures)


def measure_round(
    model_config: ModelConfig, config: TrainConfig, data: Path
) -> tuple[float, float]:
    """Return tokens/s of the bare loop and of train(), one after the other."""
    bare = run_bare(model_config, config, data)
    with tempfile.TemporaryDirectory() as folder:
        quiet = Console(quiet=True)
        result = train(model_config, config, data, Path(folder), world=World(), console=quiet)
    return bare, result.tokens_per_second


def run_bare(model_config: ModelConfig, config: TrainConfig, data: Path) -> float:
    """Return tokens/s of forward, backward and optimizer on batches that are ready."""
    manifest = load_manifest(data)
    device = pick_device(config.device, World())
    set_threads(config.threads, World())
    dtype = pick_dtype(config.dtype, device)
    set_arithmetic(device, dtype)
    model_config = dataclasses.replace(
        model_config, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    model = GPT(model_config, seed=config.seed).to(device)
    model.set_compute_dtype(dtype)
    optimizer = build_optimizer(model, parameter_roles(model), config, World())
    forward = torch.compile(model, fullgraph=True, dynamic=False) if config.compile else model
    batches = ready_batches(config, data, manifest.bos_id, device)
    rows = config.micro_rows(world_size=1)

    def step(index: int) -> None:
        inputs_BT, targets_BT = batches[index % len(batches)]
        num_parts = len(inputs_BT) // rows
        for start in range(0, len(inputs_BT), rows):
            part = slice(start, start + rows)
            loss = forward(inputs_BT[part], targets_BT[part])
            (loss / num_parts).backward()
        optimizer.step_(0.1, config.momentum)

    for index in range(WARMUP_STEPS):
        step(index)
    synchronize(device)
    started_at = now_s()
    for index in range(config.steps):
        step(index)
    synchronize(device)
    return config.steps * config.batch_tokens / (now_s() - started_at)


def ready_batches(
    config: TrainConfig, data: Path, bos_id: int, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return a few batches on the device."""
    loader = TrainBatches(
        open_shards(data, "train"),
        bos_id=bos_id,
        batch_tokens=config.batch_tokens,
        seq_len=config.seq_len,
        seed=config.seed,
    )
    arrays = [loader.next() for _ in range(8)]
    loader.close()
    return [(torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)) for a, b in arrays]


if __name__ == "__main__":
    main()
