"""Prove a text at the contest's size: train briefly, pack, measure, encode, decode, extrapolate.

    python benchmarks/prove.py --data DATA --work WORK --lanes 512

DATA is a folder made by `parbyte data`; its held-out text is coded. WORK receives model.parbyte
(trained only if it is not there yet) and the bitstream. `--parts` names some of the parts; each
adds its figures to the JSON as soon as it ends; `plain_heads` times the steps without the kernel
of heads. Meant for one GPU; runs anywhere.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from parbyte.audit.proof import prove
from parbyte.base.clock import now_s
from parbyte.base.files import sha256_bytes, write_bytes, write_json
from parbyte.base.log import Console, Progress
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.settings import to_table
from parbyte.base.units import nats_to_bits
from parbyte.base.world import World
from parbyte.codec.compress import CodecResult, compress_documents, decompress_file
from parbyte.codec.conditions import coding_arithmetic, place
from parbyte.codec.config import CodecConfig
from parbyte.kernels import heads
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.predict.build import build_predictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.steps import FixedSteps
from parbyte.quant.config import QuantConfig
from parbyte.recipe import Recipe, load_recipe
from parbyte.scoring import measure_documents
from parbyte.text.lanes import plan_lanes
from parbyte.text.manifest import load_manifest
from parbyte.text.prepare import load_run_tokenizer, split_documents
from parbyte.train.device import synchronize
from parbyte.train.loop import train

RESULT = Path(__file__).parent / "results" / "prove.json"
# The contest's validation text with its own tokenizer of 1,024 ids.
VALIDATION_TOKENS, VALIDATION_BYTES = 62_021_632, 151_080_363

SPEED_BAR, EXCESS_BAR, TEXT_BAR = 60_000.0, 0.003, 1_000_000
_ANY_BYTES = 1 << 30
_STEPS, _WARM_UPS = 40, 5


def main() -> None:
    """Run the parts and store their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="pr1430-base")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    parser.add_argument("--lanes", type=int, default=512)
    parser.add_argument("--lane-starts", type=int, nargs="*", default=[1, 64, 512, 2048])
    parser.add_argument("--max-tokens", type=int, default=0, help="of the text; 0: all of it")
    parser.add_argument("--groups", type=int, nargs="*", default=[128, 256, 512, 1024])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    figures: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    for name in args.parts:
        started_at = now_s()
        figures[name] = PARTS[name](bench)
        figures[name]["part_seconds"] = round(now_s() - started_at, 1)
        print(name, figures[name], flush=True)
        write_json(args.json, figures)


class Bench:
    """What the parts share: settings, paths and the held-out text."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.recipe: Recipe = load_recipe(args.recipe, args.set)
        self.artifact_path: Path = args.work / "model.parbyte"
        self.bitstream: Path = args.work / "heldout.pby"
        self.tokenizer = load_run_tokenizer(args.data)
        self.documents: list[NDArray[np.uint16]] = []
        num_tokens = 0
        for document in split_documents(args.data, "heldout", self.tokenizer):
            num_tokens += len(document) + 1
            if args.max_tokens and num_tokens > args.max_tokens:
                break
            self.documents.append(document)

    def codec(self, lanes: int) -> CodecConfig:
        """Return settings that put the whole text into one frame."""
        return dataclasses.replace(self.recipe.codec, lanes=lanes, frame_bytes=1 << 28)


class Watching(Console):
    """Note when how much was done."""

    def progress(self, title: str, total: float) -> Progress:
        """See Console."""
        notes = self.__dict__.setdefault("notes", [])
        notes.append((0.0, now_s()))

        class Noting(Progress):
            def update(self, done: float, figures: Mapping[str, str] | None = None) -> None:
                notes.append((done, now_s()))
                super().update(done, figures)

        return Noting(self, title, total)


def make_model(bench: Bench) -> dict[str, Any]:
    """Train for the recipe's seconds and pack with 8 bits a weight, whatever the size."""
    recipe, path = bench.recipe, bench.artifact_path
    if path.is_file():
        return {"artifact_bytes": path.stat().st_size}
    manifest = load_manifest(bench.args.data)
    shape = dataclasses.replace(
        recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    result = train(
        shape, recipe.train, bench.args.data, bench.args.work, world=World(), console=Console()
    )
    quant, pack = QuantConfig(clip="max"), PackConfig(coders=("zstd",))
    predict = to_table(recipe.predict)
    blob = build_artifact(
        result.weights, shape, bench.tokenizer, predict, quant, pack, _ANY_BYTES, {}
    )
    write_bytes(path, blob)
    return {
        "parameters": sum(weight.numel() for weight in result.weights.values()),
        "train_seconds": result.seconds,
        "train_tokens": result.tokens,
        "train_tokens_per_s": result.tokens_per_second,
        "dev_bpb": result.dev_bpb,
        "artifact_bytes": len(blob),
    }


def time_steps(bench: Bench) -> dict[str, Any]:
    """Time one step of a group of lanes in the middle of its second chunk, by size of the group."""
    artifact = load_artifact(bench.artifact_path)
    place(artifact, bench.recipe.codec.device)
    predictor = build_predictor(artifact)
    assert isinstance(predictor, NeuralPredictor)
    context = predictor.window - predictor.chunk // 2
    figures: dict[str, Any] = {"context": context}
    for group in bench.args.groups:
        with coding_arithmetic(1), torch.inference_mode():
            steps = FixedSteps(predictor.model, group, predictor.window)
            tokens = torch.randint(predictor.vocab_size, (group, context), device=predictor.device)
            synchronize(predictor.device)
            started_at = now_s()
            steps.fill(tokens)
            synchronize(predictor.device)
            filled_at = now_s()
            for step in range(_STEPS + _WARM_UPS):
                if step == _WARM_UPS:
                    synchronize(predictor.device)
                    begun_at = now_s()
                steps.step(tokens[:, :1])
            synchronize(predictor.device)
        step_s = (now_s() - begun_at) / _STEPS
        fill_s = (filled_at - started_at) * (predictor.window - predictor.chunk) / context
        figures[str(group)] = {
            "step_ms": 1e3 * step_s,
            "tokens_per_s": group / step_s,
            "fill_ms": 1e3 * fill_s,
            **_two_groups(group, predictor.chunk, step_s, fill_s),
        }
        del steps
    return figures


def time_steps_with_plain_heads(bench: Bench) -> dict[str, Any]:
    """Time the same steps with heads split by an expression."""
    with mock.patch.object(heads, "fused_split_heads", heads.plain_split_heads):
        return time_steps(bench)


def _two_groups(group: int, chunk: int, step_s: float, fill_s: float) -> dict[str, float]:
    """Return the pace of two such groups in turns, each chunk filled anew, with a hidden coder."""
    per_s = group * chunk / (chunk * step_s + fill_s)
    return {"turns_tokens_per_s": per_s, "validation_text_seconds": VALIDATION_TOKENS / per_s}


def lane_starts(bench: Bench) -> dict[str, Any]:
    """Measure the text in few and in many lanes: each lane begins without a past."""
    artifact = load_artifact(bench.artifact_path)
    rows: list[dict[str, float]] = []
    num_bytes = 0
    for wanted in bench.args.lane_starts:
        lanes = len(plan_lanes(bench.documents, bench.tokenizer.bos_id, wanted).tokens)
        ledger, _ = measure_documents(artifact, bench.documents, bench.codec(wanted), Console(True))
        num_bytes = ledger.num_bytes
        row = {"lanes": lanes, "tokens_a_lane": ledger.num_tokens / lanes, "bpb": ledger.bpb}
        rows.append(row)
    return {"measured": [{**row, **_start_cost(row, rows[0], num_bytes)} for row in rows]}


def _start_cost(
    row: Mapping[str, float], first: Mapping[str, float], num_bytes: int
) -> dict[str, float]:
    """Return what each more lane costs here, and so many lanes' share of the validation text."""
    if row["lanes"] == first["lanes"]:
        return {}
    bits = (row["bpb"] - first["bpb"]) * num_bytes / (row["lanes"] - first["lanes"])
    share = bits * row["lanes"] / (VALIDATION_BYTES * first["bpb"])
    return {"bits_a_lane": bits, "share_of_the_validation_text": share}


def round_trip(bench: Bench) -> dict[str, Any]:
    """Measure, encode and decode the whole held-out text in one frame."""
    config, path = bench.codec(bench.args.lanes), bench.artifact_path
    artifact = load_artifact(path)
    started_at = now_s()
    ledger, _ = measure_documents(artifact, bench.documents, config, Console(True))
    measured_s = now_s() - started_at
    texts = [bench.tokenizer.decode(ids) for ids in bench.documents]
    watching, back = Watching(), bench.args.work / "heldout.back"
    encoded = compress_documents(artifact, config, texts, bench.bitstream, watching)
    encoding = watching.__dict__.pop("notes")
    decoded = decompress_file(path, bench.bitstream, back, watching)
    decoding = watching.__dict__.pop("notes")
    excess = encoded.bpb / ledger.bpb - 1
    speeds = [each.tokens / each.seconds for each in (encoded, decoded)]
    return {
        "lanes": config.lanes,
        "tokens": encoded.tokens,
        "text_bytes": encoded.text_bytes,
        "bitstream_bytes": encoded.bitstream_bytes,
        "restored": back.read_bytes() == b"".join(texts),
        "measured_bpb": ledger.bpb,
        "coded_bpb": encoded.bpb,
        "coded_over_measured": excess,
        "overhead_bytes": encoded.bitstream_bytes - nats_to_bits(encoded.nats) / 8,
        "measured_tokens_per_s": ledger.num_tokens / measured_s,
        "encode": _direction(encoded, encoding, bench),
        "decode": _direction(decoded, decoding, bench),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "meets_bars": {
            "speed": min(speeds) >= SPEED_BAR,
            "coded_against_measured": abs(excess) <= EXCESS_BAR,
            "size": encoded.tokens >= TEXT_BAR,
        },
    }


def _direction(
    result: CodecResult, notes: list[tuple[float, float]], bench: Bench
) -> dict[str, Any]:
    """Return speed, seconds of each chunk, and the contest's text at the pace of full windows.

    Its first two chunks cost what they cost here; every later one moves a full window, so it is
    priced at the median of those that did so here with all lanes open.
    """
    chunk_s = [after[1] - before[1] for before, after in pairwise(notes)]
    in_chunk = bench.args.lanes * bench.recipe.predict.stride
    moving = [
        after[1] - before[1]
        for before, after in list(pairwise(notes))[2:]
        if after[0] - before[0] == in_chunk
    ]
    extrapolated = None
    if moving:
        later = VALIDATION_TOKENS / in_chunk - 2
        extrapolated = sum(chunk_s[:2]) + later * statistics.median(moving)
    return {
        "seconds": result.seconds,
        "tokens_per_s": result.tokens / result.seconds,
        "chunk_seconds": chunk_s,
        "full_window_tokens_per_s": in_chunk / statistics.median(moving) if moving else None,
        "validation_text_seconds": extrapolated,
    }


def prove_in_fresh_process(bench: Bench) -> dict[str, Any]:
    """Restore the text in a process that has the artifact and the bitstream and nothing else."""
    text = b"".join(bench.tokenizer.decode(ids) for ids in bench.documents)
    result = prove(
        bench.artifact_path,
        bench.bitstream,
        expected_sha256=sha256_bytes(text),
        expected_bytes=len(text),
        quiet=True,
    )
    return dataclasses.asdict(result)


PARTS = {
    "model": make_model,
    "steps": time_steps,
    "plain_heads": time_steps_with_plain_heads,
    "round_trip": round_trip,
    "lane_starts": lane_starts,
    "proof": prove_in_fresh_process,
}


if __name__ == "__main__":
    main()
