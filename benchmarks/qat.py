"""Train a recipe with exact or with rounded weights, for the same steps: what packing then costs.

    python benchmarks/qat.py [QAT] [--below 0.15] [--bits 6,4] [--steps 150] [--set KEY=VALUE]

QAT is off, straight, soft or noise. Every training has the same batches, one thread and no
compiler. A row: bits of all matrices, then bits per byte on the development slice (windows without
context) of the float weights, of those rounded to nearest and of those rounded by GPTQ; seconds of
training. A row that was measured before stays in the result unless it is asked for again.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from parbyte.base.files import read_json, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.quant.calibration import TrainingText
from parbyte.quant.config import QuantConfig
from parbyte.quant.heal import Batches
from parbyte.quant.quantize import dequantize_weights
from parbyte.quant.rounder import Rounder, Training
from parbyte.quant.view import packer_rounding
from parbyte.recipe import Recipe, load_recipe
from parbyte.text.manifest import load_manifest
from parbyte.text.prepare import prepare
from parbyte.train.develop import Development
from parbyte.train.loop import train

RESULT = Path(__file__).parent / "results" / "qat.json"
QUIET = Console(quiet=True)


def measure(recipe: Recipe, data: Path, folder: Path, quant: QuantConfig) -> dict[str, Any]:
    """Return one row without its plan: bits per byte three times, seconds, parameters."""
    manifest = load_manifest(data)
    shape = dataclasses.replace(
        recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    rounding = packer_rounding(shape, quant, data)
    result = train(
        shape, recipe.train, data, folder, world=World(), console=QUIET, rounding=rounding
    )
    model = GPT(shape, seed=None)
    development = Development(data, recipe.train, World(), torch.device("cpu"))
    row: dict[str, Any] = {"float": development.bpb(model, result.weights)}
    batches = Batches(batch_tokens=recipe.train.batch_tokens, seq_len=recipe.train.seq_len, seed=0)
    training = Training(TrainingText(data), batches, QUIET)
    for method in ("nearest", "gptq"):
        chosen = dataclasses.replace(quant, method=method)
        roles = parameter_roles(model)
        rounder = Rounder(result.weights, roles, shape, None, training, chosen)
        row[method] = development.bpb(model, dequantize_weights(rounder.quantize(chosen)))
    return row | {"seconds": round(result.seconds, 1)}


def main() -> None:
    """Measure one way of training at every number of bits, print the rows and keep them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("qat", nargs="?", default="off")
    parser.add_argument("--below", type=float, default=0.15)
    parser.add_argument("--bits", default="6,4")
    parser.add_argument("--recipe", default="pr1430-tiny")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--work", type=Path, default=Path("runs/qat"))
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    changes = [f"train.qat={arguments.qat}", f"train.qat_below={arguments.below}"]
    changes += [f"train.steps={arguments.steps}", "train.compile=false", "train.threads=1"]
    recipe = load_recipe(arguments.recipe, [*changes, *arguments.changes])
    data = arguments.work / "data"
    if not data.is_dir():
        prepare(recipe.text, data, QUIET)
    result = read_json(arguments.json) if arguments.json.is_file() else {"rows": {}}
    for bits in map(int, arguments.bits.split(",")):
        roles = ("attn", "mlp", "proj", "table")
        quant = dataclasses.replace(recipe.quant, **{f"bits_{role}": bits for role in roles})
        way = "off" if arguments.qat == "off" else f"{arguments.qat} below {arguments.below:g}"
        # Exact training knows no bits: its second row takes up the first one's weights.
        folder = way if arguments.qat == "off" else f"{way}, {bits} bits"
        row = measure(recipe, data, arguments.work / folder, quant)
        print(f"{way}, {bits} bits:", "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        result["rows"][f"{way}, {bits} bits"] = row
    result |= {"recipe": arguments.recipe, "changes": [*changes[2:], *arguments.changes]}
    result |= {"hardware": describe_machine(), "versions": describe_versions()}
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
