"""Fifty losses of a small network with a recipe's parts: on a GPU, and of its float32 CPU twin.

    python benchmarks/curve.py --recipe golf-record --data DATA
    python benchmarks/curve.py --recipe golf-record --data DATA --devices cuda cuda-float32

DATA is a folder made by `parbyte data`, from any text. On the GPU everything is as in the recipe:
bfloat16, compiled, its own kernels; cuda-float32 keeps its activations in float32, but for Muon's
products. Each curve is stored as it ends and compared with the CPU's, so that they may be made on
two machines. Exits 1 if two losses are more than 1 % apart.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from parbyte.base.files import read_json, sha256_file, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.recipe import load_recipe
from parbyte.train.config import TrainConfig
from parbyte.train.schedule import lr_factor, momentum_at
from parbyte.train.state import begin_run
from parbyte.train.step import TrainStep

RESULT = Path(__file__).parent / "results" / "curve.json"
MAX_DIFFERENCE = 0.01
STEPS = 50
MODEL: dict[str, Any] = {
    "num_layers": 4,
    "model_dim": 256,
    "num_heads": 4,
    "num_kv_heads": 2,
    "loop": (),
}
TRAIN: dict[str, Any] = {
    "steps": STEPS,
    "batch_tokens": 8192,
    "seq_len": 512,
    "micro_batch_tokens": 0,
    "loop_at": 0.0,
    "dev_tokens": 0,
    "qat": "off",
}
DEVICES: dict[str, dict[str, Any]] = {
    "cpu": {"device": "cpu", "dtype": "float32", "compile": False},
    "cuda": {"device": "cuda"},
    "cuda-float32": {"device": "cuda", "dtype": "float32"},
}


def losses_on(device: str, recipe: str, data: Path) -> list[float]:
    """Return the nats per token of every step on one of DEVICES."""
    given = load_recipe(recipe)
    xsa_layers = min(given.model.xsa_layers, MODEL["num_layers"])
    value_embed_layers = min(given.model.value_embed_layers, 2)
    model = dataclasses.replace(
        given.model, **MODEL, xsa_layers=xsa_layers, value_embed_layers=value_embed_layers
    )
    config: TrainConfig = dataclasses.replace(given.train, **TRAIN | DEVICES[device])
    with tempfile.TemporaryDirectory() as folder:
        world, quiet = World(), Console(quiet=True)
        run = begin_run(model, config, data, Path(folder), world=world, console=quiet)
        step = TrainStep(run.objective, run.optimizer, config, world, run.device)
        losses = []
        with closing(run.loader):
            for number in range(STEPS):
                factor = lr_factor(config, number, number / STEPS)
                momentum = momentum_at(config, number)
                loss = step(*run.loader.next(), factor, momentum)
                losses.append(float(loss.nats) / loss.weight)
    return losses


def compare(curves: Sequence[dict[str, Any]]) -> float:
    """Return how far two losses of the same step are apart at most, relative to them."""
    pairs = zip(*(curve["losses"] for curve in curves), strict=True)
    return max(abs(a / b - 1.0) for a, b in pairs)


def main() -> None:
    """Make the curves that were asked for; compare those that are there with the CPU's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="golf-record")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    about = {"recipe": args.recipe, "text_sha256": sha256_file(args.data / "train_000000.bin")}
    figures = read_json(args.json) if args.json.exists() else {}
    if {key: figures.get(key) for key in about} != about:
        figures = dict(about)
    for device in args.devices:
        figures[device] = {
            "losses": losses_on(device, args.recipe, args.data),
            "gpu": torch.cuda.get_device_name() if device != "cpu" else "",
            "machine": describe_machine(),
            "versions": describe_versions(),
        }
        write_json(args.json, figures)
        print(
            f"{device}: {figures[device]['losses'][0]:.4f} to {figures[device]['losses'][-1]:.4f}"
        )
    apart = {
        device: compare((figures["cpu"], figures[device]))
        for device in DEVICES
        if device != "cpu" and device in figures and "cpu" in figures
    }
    write_json(args.json, figures | {"worst_relative": apart})
    for device, worst in apart.items():
        print(f"{STEPS} losses of {device} differ from the CPU's by at most {worst:.2%}")
    sys.exit(0 if max(apart.values(), default=0.0) <= MAX_DIFFERENCE else 1)


if __name__ == "__main__":
    main()
