"""Quantise one trained model in many ways: bytes, measured bits per byte, seconds; a curve a way.

    python benchmarks/quantize.py [RUN] [--ways "int;nearest;gptq, rate;..."] [--json FILE]
    python benchmarks/quantize.py --table

RUN is a run folder with weights.safetensors and data/. "measured" is the network alone on the whole
development slice, windows of the training's length without overlap, in float32 on one thread. The
ways int-CODER are what contest entries began with: int7 to int4 rounded to nearest by each row's
maximum. The others make every step of the default grids 0.55, 0.8 and 1.25 times as wide, or lower
their bits; the full stack is measured at six widths. "fewer bytes" is against int-lzma's curve at
the same bits per byte. A way that was measured before stays in FILE unless it is named again;
--table writes what FILE holds into docs/quantisation.md. Beside the run's report the file becomes a
figure: write it to RUN/quantize.json.
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pages import rewrite
from parbyte.base.clock import Stopwatch
from parbyte.base.files import read_json, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.calibration import TrainingText
from parbyte.quant.config import ROLES, QuantConfig
from parbyte.quant.heal import Batches
from parbyte.quant.quantize import with_coarser_steps
from parbyte.quant.rounder import Training
from parbyte.score.tensor_costs import Reading, network_bpb
from parbyte.text.prepare import load_run_tokenizer
from parbyte.text.shards import count_tokens, open_shards

RESULT = Path(__file__).parent / "results" / "quantize.json"
PAGE = Path(__file__).parents[1] / "docs" / "quantisation.md"
WINDOW = 256
CALIBRATION_TOKENS = 16_384
NO_CAP = 10**9
WIDER = (0.55, 0.8, 1.25)
STACK, STACK_WIDER = "gptq, rate, lqer", (0.4, 0.55, 0.8, 1.0, 1.25, 1.8)
CODERS = ("lzma", "brotli", "zstd", "range", "mix")
SEED_BITS = (7, 6, 5, 4)
GPTQ = {"method": "gptq", "calibration_tokens": CALIBRATION_TOKENS}
RATE = {**GPTQ, "rate_weight": 0.1}
STEPPED: dict[str, dict[str, Any]] = {
    "nearest": {},
    "nearest, same k": {"frequency_power": 0.0},
    "sensitivity": {"allocation": "sensitivity", "calibration_tokens": CALIBRATION_TOKENS},
    "gptq": GPTQ,
    "gptq, its own text": {**GPTQ, "calibration": "self"},
    "gptq, noise": {**GPTQ, "calibration": "random"},
    "gptq, rate": RATE,
    "gptq, rate, sensitivity": {**RATE, "allocation": "sensitivity"},
    "heal": {"heal_steps": 40},
    "gptq, rate, heal": {**RATE, "heal_steps": 40},
    "gptq, groups of 32": {**GPTQ, "group": 32},
    "gptq, hessian clip": {**GPTQ, "clip_hessian": 0.175},
    "gptq, awq": {**GPTQ, "awq_columns": 16},
    "e8": {"grid": "e8"},
    "gptq, e8": {**GPTQ, "grid": "e8"},
    "gptq, lqer": {**GPTQ, "lqer_rank": 4},
    STACK: {**RATE, "lqer_rank": 4},
    "gptq, rate, lqer x 2": {**RATE, "lqer_rank": 8, "lqer_tensors": 6},
    "nearest, lqer": {"lqer_rank": 4},
    "gptq, sparse": {**GPTQ, "sparse_share": 0.002},
    "gptq, eggroll": {**GPTQ, "eggroll_trials": 40},
}
LOWERED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "codebook of pairs": ((4, 3), {"grid": "codebook", "clip": "max"}),
    "gptq, codebook of pairs": ((4, 3), {**GPTQ, "grid": "codebook", "clip": "max"}),
    "gptq, search": ((6, 5, 4, 3), {**GPTQ, "clip": "search"}),
    "gptq, ternary and binary": ((2, 1), {**GPTQ, "clip": "mean", "group": 32}),
    "gptq, refitted": ((2, 1), {**GPTQ, "clip": "mean", "group": 32, "refit_scales": True}),
}


class Subject:
    """A trained model with its text, packed and measured again and again."""

    def __init__(self, run: Path) -> None:
        """Load weights, tokenizer and development slice of a run folder."""
        data = run / "data"
        self.weights = load_file(run / "weights.safetensors")
        self.shape = ModelConfig(**read_json(run / "train.json")["model"])
        self.tokenizer = load_run_tokenizer(data)
        self.counts = count_tokens(data, "train", self.shape.vocab_size)
        ids = open_shards(data, "dev")[:]
        num_bytes = int(self.tokenizer.byte_counts(ids)[1:].sum())
        self.reading = Reading.of(ids[1:], int(ids[0]), WINDOW, num_bytes)
        self._data = data
        self._file = run / f"quantize-{os.getpid()}.parbyte"

    def pack(self, quant: QuantConfig, pack: PackConfig, cap_bytes: int) -> dict[str, Any]:
        """Return bytes and seconds of packing; the file stays for `measure`."""
        batches = Batches(batch_tokens=2048, seq_len=WINDOW, seed=0)
        training = Training(TrainingText(self._data), batches, Console(quiet=True))
        watch = Stopwatch()
        blob = build_artifact(
            self.weights,
            self.shape,
            self.tokenizer,
            {},
            quant,
            pack,
            cap_bytes,
            {},
            token_counts=self.counts,
            training=training,
        )
        seconds = watch.elapsed_s()
        self._file.write_bytes(blob)
        return {"coder": ",".join(pack.coders), "bytes": len(blob), "seconds": round(seconds, 2)}

    def measure(self) -> float:
        """Return the bits per byte of the file that was packed last, read from disk."""
        model = load_artifact(self._file).model
        self._file.unlink()
        return network_bpb(model, self.reading)

    def float_bpb(self) -> float:
        """Return the bits per byte of the weights as they were trained."""
        model = GPT(self.shape, seed=None).eval()
        model.load_state_dict(self.weights)
        return network_bpb(model, self.reading)


def main() -> None:
    """Measure the ways that are asked for, print the table and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("--ways", default=";".join(["int", *STEPPED, *LOWERED]), help="by ';'")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only write the table into the page")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(1)
        measure_ways(arguments.run, arguments.ways.split(";"), arguments.json)
    rewrite(PAGE, "ways", table_of(read_json(arguments.json)))


def measure_ways(run: Path, ways: list[str], path: Path) -> None:
    """Measure one way after another; each is stored when it is done."""
    subject = Subject(run)
    result = read_json(path) if path.is_file() else {}
    result |= {
        "float_bpb": subject.float_bpb(),
        "dev_bytes": subject.reading.num_bytes,
        "window": WINDOW,
        "calibration_tokens": CALIBRATION_TOKENS,
        "parameters": sum(weight.numel() for weight in subject.weights.values()),
        "threads": torch.get_num_threads(),
        "hardware": describe_machine(),
        "versions": describe_versions(),
    }
    print(f"float weights: {result['float_bpb']:.4f} bpb on {result['dev_bytes']:,} bytes")
    curves = result.setdefault("ways", {})
    for way in ways:
        curves |= seed_curves(subject) if way == "int" else {way: curve(subject, way)}
        result["fewer_bytes_percent"] = compare(curves)
        write_json(path, result)
        for point in curves.get(way, curves.get("int-lzma", [])):
            tax = point["bpb"] - result["float_bpb"]
            line = f"{way:24} {point['setting']:>9} {point['bytes']:9,} {point['bpb']:.4f}"
            print(f"{line} {tax:+.4f} {point['seconds']:6.1f} s", flush=True)


def seed_curves(subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """Return a curve for each coder of rounding to nearest by each row's maximum."""
    curves: dict[str, list[dict[str, Any]]] = {f"int-{coder}": [] for coder in CODERS}
    for bits in SEED_BITS:
        quant = QuantConfig(clip="max", scale_digits=10, **every_role(bits))
        points = [subject.pack(quant, coded_by(coder), NO_CAP) for coder in CODERS]
        bpb = subject.measure()
        for point in points:
            curves[f"int-{point['coder']}"].append({"setting": f"int{bits}", **point, "bpb": bpb})
    return curves


def curve(subject: Subject, way: str) -> list[dict[str, Any]]:
    """Return the points of one way, finest first, coded by "mix"."""
    if way in LOWERED:
        all_bits, settings = LOWERED[way]
        named = [(f"{b} bits", QuantConfig(**settings, **every_role(b))) for b in all_bits]
    else:
        plain = QuantConfig(**STEPPED[way])
        factors = STACK_WIDER if way == STACK else WIDER
        named = [(f"x {wider:g}", with_coarser_steps(plain, wider)) for wider in factors]
    points = []
    for setting, quant in named:
        point = {"setting": setting, **subject.pack(quant, coded_by("mix"), NO_CAP)}
        points.append({**point, "bpb": subject.measure()})
    return points


def coded_by(coder: str) -> PackConfig:
    """Return the settings that let no other coder compete."""
    return PackConfig(coders=(coder,))


def every_role(bits: int) -> dict[str, Any]:
    """Return the keys that give all matrices the same bits."""
    return {f"bits_{role}": bits for role in ROLES}


def compare(ways: dict[str, list[dict[str, Any]]]) -> dict[str, list[float | None]]:
    """Return for each point how many percent fewer bytes it takes than int-lzma at the same bpb.

    Between two points of int-lzma the logarithm of bytes is a straight line in bpb; beyond its
    ends there is none, and nothing to compare with.
    """
    bytes_at = interpolation(ways.get("int-lzma", []))

    def saved(point: dict[str, Any]) -> float | None:
        theirs = bytes_at(point["bpb"])
        return None if theirs is None else round(100 * (1 - point["bytes"] / theirs), 2)

    return {way: [saved(point) for point in points] for way, points in ways.items()}


def interpolation(points: list[dict[str, Any]]) -> Callable[[float], float | None]:
    """Return the function from bpb to bytes that a curve's points span; None outside."""
    ordered = sorted(points, key=lambda point: point["bpb"])
    bpb, size = [p["bpb"] for p in ordered], [math.log(p["bytes"]) for p in ordered]

    def bytes_at(wanted: float) -> float | None:
        inside = len(bpb) > 0 and bpb[0] <= wanted <= bpb[-1]
        return math.exp(float(np.interp(wanted, bpb, size))) if inside else None

    return bytes_at


def table_of(result: dict[str, Any]) -> str:
    """Return the table of all points."""
    float_bpb = result["float_bpb"]
    lines = [
        f"Float weights: {result['parameters']:,} parameters, {float_bpb:.4f} bpb (measured, the "
        f"network alone, {result['dev_bytes']:,} bytes of the development slice, windows of "
        f"{result['window']}).",
        "",
        "| way | setting | coder | bytes | bpb (measured) | above float | fewer bytes | packing |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, points in result["ways"].items():
        for p, saved in zip(points, result["fewer_bytes_percent"][way], strict=True):
            fewer = "" if saved is None else f"{saved:.1f} %"
            lines.append(
                f"| {way} | {p['setting']} | {p['coder']} | {p['bytes']:,} | {p['bpb']:.4f} | "
                f"{p['bpb'] - float_bpb:+.4f} | {fewer} | {p['seconds']:.1f} s |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
