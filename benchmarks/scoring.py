"""Time measured sliding evaluation at several strides and extrapolate to the validation text.

    python benchmarks/scoring.py --data DATA --strides 64 1024 --seconds 10

The shape is a recipe's, with weights as they are drawn: speed does not depend on them. The windows
are those of `parbyte score`, taken from the held-out text of DATA, over and over, until the time is
up; compiling is told apart.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from parbyte.base.clock import now_s
from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.model.gpt import GPT
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.windows import plan_windows
from parbyte.recipe import load_recipe
from parbyte.score.prices import BATCH_TOKENS, window_prices
from parbyte.text.lanes import Lanes, plan_lanes
from parbyte.text.manifest import load_manifest
from parbyte.text.prepare import load_run_tokenizer, split_documents
from parbyte.train.device import pick_device

RESULT = Path(__file__).parent / "results" / "scoring.json"
VALIDATION_TOKENS = 62_021_632
BARS = {64: 150_000.0, 1024: 1_200_000.0}
_TIMES = 16
"""How often the held-out text is taken, so that there are windows for the whole time."""

_WARM_UPS = 4
"""Batches that are left out: the compiler works in the first of each shape."""


def main() -> None:
    """Time every stride and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="pr1430-base")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    parser.add_argument("--strides", type=int, nargs="*", default=[64, 1024])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS["cuda"])
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, args.set)
    manifest = load_manifest(args.data)
    shape = dataclasses.replace(
        recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    device = pick_device(recipe.codec.device, World())
    model = GPT(shape, seed=0).eval().requires_grad_(False).to(device)
    model.set_compute_dtype(getattr(torch, recipe.predict.dtype))
    BATCH_TOKENS[device.type] = args.batch_tokens
    tokenizer = load_run_tokenizer(args.data)
    documents = _TIMES * list(split_documents(args.data, "heldout", tokenizer))
    lanes = plan_lanes(documents, tokenizer.bos_id, 1)
    figures: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "machine": describe_machine(),
        "versions": describe_versions(),
        "recipe": args.recipe,
        "dtype": recipe.predict.dtype,
        "window": recipe.predict.window,
        "batch_tokens": args.batch_tokens,
    }
    for stride in args.strides:
        predictor = NeuralPredictor(model, window=recipe.predict.window, stride=stride)
        figures[f"stride_{stride}"] = time_stride(predictor, lanes, tokenizer.bos_id, args.seconds)
        print(stride, figures[f"stride_{stride}"], flush=True)
        write_json(args.json, figures)


def time_stride(
    predictor: NeuralPredictor, lanes: Lanes, bos_id: int, seconds: float
) -> dict[str, Any]:
    """Return the pace of moving windows, over and over the text until the time is up."""
    opening, _ = plan_windows(lanes.lengths, predictor.window, predictor.chunk)
    opening_batches = -(-len(opening) * opening.width // BATCH_TOKENS[predictor.device.type])
    started_at = now_s()
    tokens, begun_at, ended_at = 0, 0.0, 0.0
    for number, (places, _) in enumerate(window_prices(predictor, lanes, bos_id)):
        ended_at = now_s()
        if number < opening_batches + _WARM_UPS:
            begun_at = ended_at
            continue
        tokens += len(places)
        if ended_at - begun_at >= seconds:
            break
    rate = tokens / (ended_at - begun_at)
    return {
        "scored_tokens": tokens,
        "seconds": ended_at - begun_at,
        "first_batches_seconds": begun_at - started_at,
        "scored_tokens_per_s": rate,
        "forward_tokens_per_s": rate * predictor.window / predictor.chunk,
        "validation_text_seconds": VALIDATION_TOKENS / rate,
        "bar": BARS.get(predictor.chunk),
    }


if __name__ == "__main__":
    main()
