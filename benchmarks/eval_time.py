"""Score the development text of a run with one system after the other, on the same artifact.

    python benchmarks/eval_time.py runs/demo                      every system alone, then the stack
    python benchmarks/eval_time.py runs/demo --tokens 6000        the first documents only
    python benchmarks/eval_time.py runs/demo --stacks FILE        other stacks
    python benchmarks/eval_time.py --table                        docs/eval-time.md from the result

A stacks file is a JSON object, name -> list of stages as a recipe's predict.stack has them. The
network's own rows are computed once; a stack of row stages is timed on top of them, so that its
seconds are its own. A stack that adapts the network is timed as a whole. What only torch computes
runs over the torch network. A loss stays in the table.
"""

import argparse
import json
import os
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

from pages import rewrite
from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.codec.conditions import coding_arithmetic
from parbyte.pack.artifact import Artifact, load_artifact
from parbyte.predict.adapter_config import NETWORK_STAGES, TORCH_STAGES
from parbyte.predict.build import build_predictor, build_row_stage, fit_stack, read_settings
from parbyte.predict.predictor import Predictor
from parbyte.score.measure import measure
from parbyte.text.lanes import Lanes, plan_lanes
from parbyte.text.prepare import split_documents

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "eval_time.json", HERE.parent / "docs" / "eval-time.md"
NGRAM = {"kind": "ngram"}
EXPERTS = [NGRAM, {"kind": "match"}, {"kind": "recent"}]
STACKS: dict[str, list[dict[str, Any]]] = {
    "n-gram, Dirichlet": [{"kind": "ngram", "method": "dirichlet"}],
    "n-gram, Witten-Bell": [{"kind": "ngram", "method": "witten-bell"}],
    "n-gram, PPM-D": [{"kind": "ngram", "method": "ppmd"}],
    "n-gram, Kneser-Ney": [NGRAM],
    "the same, learned chunk by chunk": [{**NGRAM, "learn": "chunk"}],
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
    "bytes": [{"kind": "bytes"}],
    "mix, bytes": [{"kind": "mix"}, {"kind": "bytes"}],
    "logit bias (etlb)": [{"kind": "etlb"}],
    "temperature": [{"kind": "temperature"}],
    "shift fitted to the context (slot)": [{"kind": "slot"}],
    "the same, L-BFGS": [{"kind": "slot", "optimizer": "lbfgs", "steps": 4}],
    "adapters per document (lora)": [{"kind": "lora"}],
    "test-time training": [{"kind": "ttt"}],
    "the same, SGD": [{"kind": "ttt", "optimizer": "sgd", "lr": 0.002, "embed_lr": 0.002}],
    "the same, last block": [{"kind": "ttt", "train": "last"}],
    "the same, all but tables": [{"kind": "ttt", "train": "no_embed"}],
    "the same, vectors only": [{"kind": "ttt", "train": "scalars"}],
    "test-time training, mix": [{"kind": "ttt"}, {"kind": "mix"}],
    "test-time training, mix, bytes": [{"kind": "ttt"}, {"kind": "mix"}, {"kind": "bytes"}],
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
    parser.add_argument(
        "run", type=Path, nargs="?", default=Path("runs/demo"), help="with data and artifact"
    )
    parser.add_argument("--stacks", type=Path, help="JSON: name -> stages; default: every one")
    parser.add_argument("--tokens", type=int, default=0, help="of the text; 0: all of them")
    parser.add_argument("--table", action="store_true", help="only write the result into the docs")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    if not args.table:
        compare(args)
    write_table(json.loads(args.json.read_text()))


def compare(args: argparse.Namespace) -> None:
    """Score with every stack and store the figures after each."""
    stacks = json.loads(args.stacks.read_text()) if args.stacks else STACKS
    artifact = load_artifact(args.run / "model.parbyte")
    bos_id = artifact.tokenizer.bos_id
    documents = list(split_documents(args.run / "data", "dev", artifact.tokenizer))
    ends = np.cumsum([len(document) for document in documents])
    count = int(np.searchsorted(ends, args.tokens)) + 1 if args.tokens else len(documents)
    lanes = plan_lanes(documents[:count], bos_id, args.lanes)
    with coding_arithmetic(1), tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        bare = build_predictor(replace(artifact, predict={**artifact.predict, "stack": []}))
        tape = Tape(bare, lanes, bos_id, Path(folder) / "rows")
        network_s = watch.elapsed_s()
        alone = row(lambda: tape, artifact, lanes)
        rows = {"network": {**alone, "seconds": network_s, "gain": 0.0}}
        for name, stack in stacks.items():
            make = partial(stacked, stack, artifact, tape, args.run / "data")
            measured = row(make, artifact, lanes)
            rows[name] = {**measured, "gain": 1.0 - measured["bpb"] / alone["bpb"], "stack": stack}
            show(name, rows[name])
            figures = {
                "run": args.run.name,
                "split": "dev",
                "lanes": len(lanes.tokens),
                "tokens": sum(lanes.lengths),
                "rows": rows,
                "load_average": os.getloadavg()[0],
                "machine": describe_machine(),
                "versions": describe_versions(),
            }
            write_json(args.json, figures)


def stacked(stack: list[dict[str, Any]], artifact: Artifact, tape: Tape, data: Path) -> Predictor:
    """Return the stages over the recorded rows, or over the network if they adapt it."""
    settings = {**artifact.predict, "stack": stack}
    kinds = [stage["kind"] for stage in stack]
    if any(kind in TORCH_STAGES for kind in kinds) or any("learn" in stage for stage in stack):
        settings["engine"] = "torch"
    if kinds and kinds[0] in NETWORK_STAGES:
        return build_predictor(replace(artifact, predict=settings))
    fitted = fit_stack(replace(artifact, predict=settings), data)
    predictor: Predictor = tape
    for stage in read_settings(fitted).stack:
        tokenizer, prior_N = artifact.tokenizer, artifact.prior_N
        predictor = build_row_stage(stage, predictor, tokenizer.bos_id, tokenizer, prior_N)
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


def write_table(figures: dict[str, Any]) -> None:
    """Put the result between the page's markers."""
    network = figures["rows"]["network"]
    lines = [
        f"The development text of `{figures['run']}` ({figures['tokens']:,} tokens, "
        f"{figures['lanes']} lane), one artifact; seconds in units of the network's own, what a "
        "row stage takes on top of them, an adapting network as a whole.",
        "",
        "| system | bpb | gain | seconds / network's | numpy arrays, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in figures["rows"].items():
        cells = [
            name,
            f"{row['bpb']:.4f}",
            f"{row['gain']:+.2%}",
            f"{row['seconds'] / network['seconds']:.2f}",
            f"{row['peak_array_bytes'] / 1e6:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rewrite(PAGE, "systems", "\n".join(lines))


if __name__ == "__main__":
    main()
