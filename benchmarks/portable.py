"""Time the portable engine against the torch engine, and compare their bits.

    python benchmarks/portable.py
    python benchmarks/portable.py runs/demo/model.parbyte runs/demo/data/heldout.txt

Without an artifact: the recipe's model with random weights over random tokens, which cost the same
time as true ones. Both engines take turns, so that other work on the machine meets both alike. The
start-up is a fresh process up to its first row, once with an empty code cache and once more.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.codec.conditions import coding_arithmetic
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import Decoder, Encoder
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import load_artifact
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.predictor import Predictor
from parbyte.recipe import load_recipe
from parbyte.text.lanes import plan_lanes

RESULT = Path(__file__).parent / "results" / "portable.json"
VOCAB = 4096
SPEED_BAR, BITS_BAR, START_BAR_S = 0.5, 0.0005, 10.0
START = """
import torch
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.base.clock import Stopwatch
model = GPT(ModelConfig(vocab_size=4096), seed=0)
watch = Stopwatch()
from parbyte.codec.freqs import to_freqs
from parbyte.predict.portable import PortablePredictor
to_freqs(PortablePredictor(model, window=256, stride=128).step(torch.tensor([0])), portable=True)
print(watch.elapsed_s())
"""


def main() -> None:
    """Run all rounds, print the figures and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--recipe", default="tiny", help="whose model, where no artifact is given")
    parser.add_argument("--steps", type=int, default=256, help="at most so many tokens a lane")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.artifact and not args.text:
        parser.error("an artifact needs a text")
    model, window, stride, known = subject(args)
    engines: dict[str, Predictor] = {
        "torch": NeuralPredictor(model, window=window, stride=stride),
        "portable": PortablePredictor(model, window=window, stride=stride),
    }
    bos_id = model.config.bos_id
    by_threads = {n: race(engines, known, bos_id, n, args.rounds) for n in args.threads}
    start_s = start_up()
    slowest = min(each["slower_direction_ratio"] for each in by_threads.values())
    excess = max(abs(each["portable_over_torch_nats"]) for each in by_threads.values())
    figures = {
        "subject": str(args.artifact or f"recipe {args.recipe}, random weights and tokens"),
        "lanes": len(known),
        "tokens": sum(map(len, known)),
        "by_threads": by_threads,
        "start_s": start_s,
        "meets_bars": {
            "speed": slowest >= SPEED_BAR,
            "bits": excess <= BITS_BAR,
            "start": start_s["empty_cache"] <= START_BAR_S,
        },
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    print(json.dumps(figures, indent=2))
    write_json(args.json, figures)


def subject(args: argparse.Namespace) -> tuple[GPT, int, int, list[NDArray[np.uint16]]]:
    """Return the model, its window and stride, and each lane's tokens."""
    if args.artifact:
        artifact = load_artifact(args.artifact)
        tokenizer, predict = artifact.tokenizer, artifact.predict
        ids = tokenizer.encode(args.text.read_bytes())
        lanes = plan_lanes([ids], tokenizer.bos_id, args.lanes).tokens
        known = [lane[: args.steps] for lane in lanes]
        return artifact.model, int(predict["window"]), int(predict["stride"]), known
    recipe = load_recipe(args.recipe, [])
    model = GPT(replace(recipe.model, vocab_size=VOCAB), seed=0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    tokens = torch.randint(VOCAB, (args.lanes, args.steps), generator=generator)
    known = list(tokens.numpy().astype(np.uint16))
    return model, recipe.predict.window, recipe.predict.stride, known


def race(
    engines: dict[str, Predictor],
    known: list[NDArray[np.uint16]],
    bos_id: int,
    threads: int,
    rounds: int,
) -> dict[str, Any]:
    """Return the median tokens/s of each engine in each direction, and what they have in common."""
    seconds: dict[str, list[float]] = {}
    nats: dict[str, float] = {}
    with coding_arithmetic(threads):
        for predictor in engines.values():  # compiles and warms up
            round_trip(predictor, [lane[:8] for lane in known], bos_id)
        for _ in range(rounds):
            for name, predictor in engines.items():
                encode_s, decode_s, nats[name] = round_trip(predictor, known, bos_id)
                seconds.setdefault(f"{name}_encode", []).append(encode_s)
                seconds.setdefault(f"{name}_decode", []).append(decode_s)
    num_tokens = sum(map(len, known))
    speeds = {name: num_tokens / statistics.median(times) for name, times in seconds.items()}
    ratios = [speeds[f"portable_{way}"] / speeds[f"torch_{way}"] for way in ("encode", "decode")]
    return {
        "tokens_per_s": speeds,
        "slower_direction_ratio": min(ratios),
        "portable_over_torch_nats": nats["portable"] / nats["torch"] - 1,
    }


def round_trip(
    predictor: Predictor, known: list[NDArray[np.uint16]], bos_id: int
) -> tuple[float, float, float]:
    """Return the seconds of encoding and of decoding, and the nats."""
    console, lengths = Console(quiet=True), [len(lane) for lane in known]
    watch = Stopwatch()
    encoder = Encoder(known)
    driven = drive(predictor, encoder, lengths, bos_id, console)
    encode_s, payload = watch.elapsed_s(), encoder.to_bytes()
    watch = Stopwatch()
    restored = drive(predictor, Decoder(payload, predictor.vocab_size), lengths, bos_id, console)
    decode_s = watch.elapsed_s()
    for lane, back in zip(known, restored.tokens, strict=True):
        assert np.array_equal(lane, back)
    return encode_s, decode_s, driven.nats


def start_up() -> dict[str, float]:
    """Return the seconds from import to the first row, with an empty and a filled code cache."""
    with tempfile.TemporaryDirectory() as cache:
        # The setting must be in the new process before it imports numba.
        code = f"import os; os.environ['NUMBA_CACHE_DIR'] = {cache!r}\n{START}"
        times = [
            float(
                subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
            )
            for _ in range(2)
        ]
    return {"empty_cache": times[0], "filled_cache": times[1]}


if __name__ == "__main__":
    main()
