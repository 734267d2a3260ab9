"""Quantise one trained model in many ways: bytes, measured bits per byte, seconds; a curve a way.

    python benchmarks/quantize.py [RUN] [--ways seed,nearest,gptq,...] [--json FILE]

RUN is a run folder with weights.safetensors and data/. "measured" is on the whole development
slice, windows of 512 tokens that advance by 256, in float32. The way "seed" is what contest entries
began with: int6 (and 8, 7, 5, 4) rounded to nearest by each row's maximum, then lzma. A way that
was measured before stays in FILE unless it is named again. Beside the run's report the file becomes
a figure: write it to RUN/quantize.json.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import CapError
from parbyte.base.files import read_json, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.units import bits_per_byte
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.calibration import TrainingText
from parbyte.quant.config import QuantConfig
from parbyte.quant.heal import Batches
from parbyte.quant.rounder import Training
from parbyte.text.prepare import load_run_tokenizer
from parbyte.text.shards import count_tokens, open_shards

RESULT = Path(__file__).parent / "results" / "quantize.json"
WINDOW, STRIDE, ROWS = 512, 256, 8
BITS = (8, 7, 6, 5, 4)
CAPS = (180_000, 220_000, 260_000, 300_000, 340_000, 400_000)
HEAL_STEPS = 60
OURS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "sensitivity": {"allocation": "sensitivity"},
    "gptq": {"method": "gptq"},
    "gptq-self": {"method": "gptq", "calibration": "self"},
    "gptq-random": {"method": "gptq", "calibration": "random"},
    "gptq-rate": {"method": "gptq", "rate_weight": 0.1},
    "full": {"method": "gptq", "rate_weight": 0.1, "allocation": "sensitivity"},
    "heal": {"heal_steps": HEAL_STEPS},
    "gptq-rate-heal": {"method": "gptq", "rate_weight": 0.1, "heal_steps": HEAL_STEPS},
}
SEED_CODERS = {"seed": ("lzma",), "seed-brotli": ("brotli",), "seed-mix": ("mix",)}


class Subject:
    """A trained model with its text, packed and measured again and again."""

    def __init__(self, run: Path) -> None:
        """Load weights, tokenizer and development slice of a run folder."""
        data = run / "data"
        self.weights = load_file(run / "weights.safetensors")
        self.shape = ModelConfig(**read_json(run / "train.json")["model"])
        self.tokenizer = load_run_tokenizer(data)
        self.counts = count_tokens(data, "train", self.shape.vocab_size)
        self.ids = open_shards(data, "dev")[:]
        self.num_bytes = int(self.tokenizer.byte_counts(self.ids)[1:].sum())
        self._data = data
        self._file = run / "quantize.parbyte"

    def pack(self, quant: QuantConfig, pack: PackConfig, cap_bytes: int) -> dict[str, Any]:
        """Return one point of a curve: bytes, measured bpb, seconds of packing."""
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
        bpb = self.measure(load_artifact(self._file).model)
        self._file.unlink()
        return {"bytes": len(blob), "bpb": bpb, "seconds": round(seconds, 2)}

    @torch.no_grad()
    def measure(self, model: GPT) -> float:
        """Return the bits per byte of the development slice, each token scored once."""
        model.eval()
        ids = torch.from_numpy(self.ids.astype(np.int64))
        starts = range(0, len(ids) - 1, STRIDE)
        rows = [self._row(ids, start) for start in starts]
        nats = 0.0
        for at in range(0, len(rows), ROWS):
            inputs, targets = (
                torch.stack(part) for part in zip(*rows[at : at + ROWS], strict=True)
            )
            nats += model(inputs, targets).item() * int((targets != -100).sum())
        return bits_per_byte(nats, self.num_bytes)

    def _row(self, ids: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin, end = max(0, start - (WINDOW - STRIDE)), min(len(ids) - 1, start + STRIDE)
        inputs = torch.full((WINDOW,), self.shape.bos_id)
        targets = torch.full((WINDOW,), -100)
        inputs[: end - begin] = ids[begin:end]
        targets[start - begin : end - begin] = ids[start + 1 : end + 1]
        return inputs, targets


def main() -> None:
    """Measure the ways that are asked for, print the table and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("--ways", default=",".join([*SEED_CODERS, *OURS]))
    parser.add_argument("--caps", default=",".join(str(cap) for cap in CAPS))
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    subject = Subject(arguments.run)
    model = GPT(subject.shape, seed=None)
    model.load_state_dict(subject.weights)
    result = read_json(arguments.json) if arguments.json.is_file() else {}
    result |= {
        "float_bpb": subject.measure(model),
        "dev_bytes": subject.num_bytes,
        "parameters": sum(weight.numel() for weight in subject.weights.values()),
        "threads": torch.get_num_threads(),
        "hardware": describe_machine(),
        "versions": describe_versions(),
    }
    print(f"float weights: {result['float_bpb']:.4f} bpb on {subject.num_bytes:,} bytes")
    caps = [int(cap) for cap in arguments.caps.split(",")]
    for way in arguments.ways.split(","):
        points = seed_points(subject, way) if way in SEED_CODERS else our_points(subject, way, caps)
        result.setdefault("ways", {})[way] = points
        result["fewer_bytes_percent"] = compare(result["ways"])
        write_json(arguments.json, result)
        for point in points:
            tax = point["bpb"] - result["float_bpb"]
            line = f"{way:15} {point['setting']:>9} {point['bytes']:9,} {point['bpb']:.4f}"
            print(f"{line} {tax:+.4f} {point['seconds']:6.1f} s", flush=True)
    for way, percent in result["fewer_bytes_percent"].items():
        print(f"{way}: bytes saved against the seed at equal bpb, percent: {percent}")


def seed_points(subject: Subject, way: str) -> list[dict[str, Any]]:
    """Return the curve of rounding to nearest by each row's maximum, one point a bit depth."""
    pack, points = PackConfig(coders=SEED_CODERS[way]), []
    for bits in BITS:
        quant = QuantConfig(
            clip="max",
            bits_embed=bits,
            bits_table=bits,
            bits_attn=bits,
            bits_mlp=bits,
            bits_proj=bits,
            scale_digits=10,
        )
        points.append({"setting": f"int{bits}", **subject.pack(quant, pack, 10**9)})
    return points


def our_points(subject: Subject, way: str, caps: list[int]) -> list[dict[str, Any]]:
    """Return the curve of one way over the caps; a cap that cannot be met is left out."""
    pack, quant, points = PackConfig(fit=True, coders=("mix",)), QuantConfig(**OURS[way]), []
    for cap in caps:
        try:
            points.append({"setting": f"{cap:,}", **subject.pack(quant, pack, cap)})
        except CapError as error:
            print(f"{way}: {error}")
    return points


def compare(ways: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Return for each way how many percent fewer bytes it takes at the bpb of the seed's points.

    Between two points a curve's logarithm of bytes is a straight line; none is drawn beyond its
    ends.
    """
    peers = ways.get("seed", [])
    saved = {}
    for way, points in ways.items():
        bytes_at = interpolation(points)
        found = [(peer["bytes"], bytes_at(peer["bpb"])) for peer in peers]
        saved[way] = [round(100 * (1 - ours / theirs), 2) for theirs, ours in found if ours]
    return saved


def interpolation(points: list[dict[str, Any]]) -> Callable[[float], float | None]:
    """Return the function from bpb to bytes that a curve's points span; None outside."""
    ordered = sorted(points, key=lambda point: point["bpb"])
    bpb, size = [p["bpb"] for p in ordered], [math.log(p["bytes"]) for p in ordered]

    def bytes_at(wanted: float) -> float | None:
        inside = len(bpb) > 0 and bpb[0] <= wanted <= bpb[-1]
        return math.exp(float(np.interp(wanted, bpb, size))) if inside else None

    return bytes_at


if __name__ == "__main__":
    main()
