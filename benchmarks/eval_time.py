"""Score the development text of a run with one stack of stages after the other.

    python benchmarks/eval_time.py runs/demo
    python benchmarks/eval_time.py runs/demo --lanes 8 --stacks stacks.json

A stacks file is a JSON object, name -> list of stages as a recipe's predict.stack has them. The
network's own rows are computed once; a stack of row stages is timed on top of them, so that its
seconds are its own. A stack that adapts the network is timed as a whole. A loss stays in the table.
"""

import argparse
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.codec.conditions import coding_arithmetic
from parbyte.pack.artifact import Artifact, load_artifact
from parbyte.predict.adapter_config import NETWORK_STAGES
from parbyte.predict.build import build_predictor, build_row_stage, read_settings
from parbyte.predict.predictor import Predictor
from parbyte.score.measure import measure
from parbyte.text.lanes import Lanes, plan_lanes
from parbyte.text.prepare import split_documents

RESULT = Path(__file__).parent / "results" / "eval_time.json"
NGRAM = {"kind": "ngram"}
EXPERTS = [NGRAM, {"kind": "match"}, {"kind": "recent"}]
STACKS: dict[str, list[dict[str, Any]]] = {
    "n-gram, Dirichlet": [{"kind": "ngram", "method": "dirichlet"}],
    "n-gram, Witten-Bell": [{"kind": "ngram", "method": "witten-bell"}],
    "n-gram, PPM-D": [{"kind": "ngram", "method": "ppmd"}],
    "n-gram, Kneser-Ney": [NGRAM],
    "tilt": [{"kind": "tilt"}],
    "mix of n-grams": [{"kind": "mix", "experts": [NGRAM]}],
    "mix of n-grams, match": [{"kind": "mix", "experts": EXPERTS[:2]}],
    "mix, linear": [{"kind": "mix", "mode": "linear"}],
    "mix, gated by entropy": [{"kind": "mix", "mode": "gated"}],
    "mix": [{"kind": "mix"}],
    "mix, skipping contexts too": [
        {"kind": "mix", "experts": [*EXPERTS, {"kind": "ngram", "order": 2, "skip": 1}]}
    ],
    "secondary estimation": [{"kind": "sse"}],
    "mix, secondary estimation": [{"kind": "mix"}, {"kind": "sse"}],
}


class Tape(Predictor):
    """The rows of a predictor over known lanes, kept in a file."""

    def __init__(self, predictor: Predictor, lanes: Lanes, bos_id: int, file: Path) -> None:
        self.vocab_size, self.chunk = predictor.vocab_size, predictor.chunk
        self.is_portable = predictor.is_portable
        shape = (len(lanes.tokens), max(lanes.lengths), self.vocab_size)
        self._rows_BTV = np.memmap(file, np.float32, "w+", shape=shape)
        predictor.restore()
        for start in range(0, shape[1], self.chunk):
            stop = min(start + self.chunk, shape[1])
            tokens_BT = torch.from_numpy(lanes.padded(start, stop, bos_id))
            self._rows_BTV[:, start:stop] = predictor.log_probs(tokens_BT).cpu().numpy()
            predictor.observe(tokens_BT)
        predictor.restore()
        self._start = 0

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor."""
        stop = self._start + tokens_BT.shape[1]
        return torch.from_numpy(np.array(self._rows_BTV[:, self._start : stop]))

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor."""
        super().observe(chunk_BT)
        self._start += chunk_BT.shape[1]

    def restore(self) -> None:
        """See Predictor."""
        super().restore()
        self._start = 0


def main() -> None:
    """Score every stack, print a table and store the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder with data and artifact")
    parser.add_argument(
        "--stacks", type=Path, help="JSON: name -> stages; default: every row stage"
    )
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    stacks = json.loads(args.stacks.read_text()) if args.stacks else STACKS
    artifact = load_artifact(args.run / "model.parbyte")
    bos_id = artifact.tokenizer.bos_id
    documents = list(split_documents(args.run / "data", "dev", artifact.tokenizer))
    lanes = plan_lanes(documents, bos_id, args.lanes)
    with coding_arithmetic(1), tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        bare = build_predictor(replace(artifact, predict={**artifact.predict, "stack": []}))
        tape = Tape(bare, lanes, bos_id, Path(folder) / "rows")
        network_s = watch.elapsed_s()
        alone = row(lambda: tape, artifact, lanes)
        rows = {"network": {**alone, "seconds": network_s, "gain": 0.0}}
        for name, stack in stacks.items():
            measured = row(partial(stacked, stack, artifact, tape), artifact, lanes)
            rows[name] = {**measured, "gain": 1.0 - measured["bpb"] / alone["bpb"], "stack": stack}
            show(name, rows[name])
    figures = {
        "run": args.run.name,
        "split": "dev",
        "lanes": len(lanes.tokens),
        "tokens": sum(lanes.lengths),
        "rows": rows,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    write_json(args.json, figures)


def stacked(stack: list[dict[str, Any]], artifact: Artifact, tape: Tape) -> Predictor:
    """Return the stages over the recorded rows, or over the network if they adapt it."""
    settings = {**artifact.predict, "stack": stack}
    stages = read_settings(settings).stack
    if stages and stages[0].kind in NETWORK_STAGES:
        return build_predictor(replace(artifact, predict=settings))
    predictor: Predictor = tape
    for stage in stages:
        predictor = build_row_stage(stage, predictor, artifact.tokenizer.bos_id, artifact.tokenizer)
    return predictor


def row(make: Callable[[], Predictor], artifact: Artifact, lanes: Lanes) -> dict[str, Any]:
    """Return bits per byte, seconds, and the largest memory that arrays took; compiles first."""
    make().step(torch.full((len(lanes.tokens),), artifact.tokenizer.bos_id))
    tracemalloc.start()
    predictor, watch = make(), Stopwatch()
    ledger = measure(predictor, lanes, artifact.tokenizer, Console(quiet=True))
    seconds = watch.elapsed_s()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "bpb": ledger.bpb,
        "seconds": seconds,
        "microseconds_per_token": 1e6 * seconds / ledger.num_tokens,
        "peak_array_bytes": peak,
    }


def show(name: str, figures: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"{name:28} {figures['bpb']:.4f} bpb  {figures['gain']:+7.2%}  "
        f"{figures['seconds']:7.2f} s  {figures['microseconds_per_token']:6.0f} us/token  "
        f"{figures['peak_array_bytes'] / 1e6:6.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
