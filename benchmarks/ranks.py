"""Training speed of a recipe on 1, 2, 4, ... GPUs of one host, and whether they learn the same.

    python benchmarks/ranks.py --recipe golf-record --data DATA --ranks 1 2 4 --steps 60

DATA is a folder made by `parbyte data` with the recipe's vocabulary, from any text. Every number of
ranks makes the same steps on the same batches, each rank its part of them, launched by torchrun.
Exits 1 if a loss, the mean of the last steps, is more than 1 % away from the first one.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from parbyte.base.files import read_json, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import init_process_group, leave_process_group, world_from_environment
from parbyte.recipe import load_recipe
from parbyte.train.loop import train

RESULT = Path(__file__).parent / "results" / "ranks.json"
MAX_DIFFERENCE = 0.01


def train_as_rank(args: argparse.Namespace) -> None:
    """Train with torchrun's variables; rank 0 writes the figures."""
    world = world_from_environment()
    init_process_group(world, args.device)
    given = load_recipe(args.recipe)
    changes = {"steps": args.steps, "device": args.device, "checkpoint_seconds": 0.0}
    config = dataclasses.replace(given.train, **changes, dev_tokens=0, qat="off")
    with tempfile.TemporaryDirectory() as folder:
        quiet = Console(quiet=True)
        made = train(given.model, config, args.data, Path(folder), world=world, console=quiet)
    if world.is_main:
        figures = {
            "tokens_per_second": made.tokens_per_second,
            "seconds": made.seconds,
            "final_loss": made.final_loss,
            "peak_memory_bytes": made.peak_memory_bytes,
        }
        write_json(args.json, figures)
    leave_process_group(world)


def measure(args: argparse.Namespace, ranks: int) -> dict[str, Any]:
    """Return the figures of a launch with so many ranks."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={ranks}", __file__, "--recipe", args.recipe]
        command += ["--data", str(args.data), "--steps", str(args.steps), "--json", str(result)]
        subprocess.run([*command, "--device", args.device, "--as-rank"], check=True)
        return read_json(result)


def main() -> None:
    """Measure every number of ranks and store the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="golf-record")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_rank:
        train_as_rank(args)
        return
    figures: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else "",
        "machine": describe_machine(),
        "versions": describe_versions(),
        "recipe": args.recipe,
        "steps": args.steps,
        "ranks": {},
    }
    first: dict[str, Any] | None = None
    worst = 0.0
    for ranks in args.ranks:
        found = measure(args, ranks)
        first = first or found
        found["speedup"] = found["tokens_per_second"] / first["tokens_per_second"]
        found["loss_difference"] = abs(found["final_loss"] / first["final_loss"] - 1.0)
        worst = max(worst, found["loss_difference"])
        figures["ranks"][str(ranks)] = found
        write_json(args.json, figures)
        print(
            f"{ranks} ranks: {found['tokens_per_second']:,.0f} tokens/s, {found['speedup']:.2f} x, "
            f"loss {found['final_loss']:.4f} ({found['loss_difference']:.3%} away), "
            f"{found['peak_memory_bytes'] / 2**30:.1f} GiB on rank 0"
        )
    sys.exit(0 if worst <= MAX_DIFFERENCE else 1)


if __name__ == "__main__":
    main()
