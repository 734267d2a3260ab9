"""Training speed of recipes on one GPU: tokens/s, share of the matmul ceiling, where time goes.

    python benchmarks/train.py --data golf-baseline=DATA1024 golf-record=DATA8192
    python benchmarks/train.py --data golf-record=DATA8192 --measure gains scaling
    python benchmarks/train.py --data golf-baseline=DATA1024 --peer train_gpt.py A=B

DATA is a folder made by `parbyte data` with the recipe's vocabulary, from any text. Each recipe is
compiled, then timed step by step on that text, without its loop and with it; one more step is
profiled. `scaling` repeats this for other batches and lengths, `documents` with attention that ends
where documents do. `gains` takes away one kernel at a time. --peer runs a script of the contest on
the first recipe's tokens, with the environment given, and prints its tokens/s beside that recipe's.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from parbyte.base.clock import now_s
from parbyte.base.files import read_json, write_json
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.kernels import heads, loss, mlp
from parbyte.model.config import ModelConfig
from parbyte.model.roles import Role, parameter_roles
from parbyte.recipe import load_recipe
from parbyte.text.batches import TrainBatches
from parbyte.text.manifest import load_manifest
from parbyte.text.official import OfficialTokenizer
from parbyte.text.prepare import load_run_tokenizer
from parbyte.text.sentencepiece_model import write_model
from parbyte.text.sentencepiece_tokenizer import SentencePieceTokenizer
from parbyte.text.shards import open_shards
from parbyte.train.config import TrainConfig
from parbyte.train.speed import Rehearsal, matmul_flops

RESULT = Path(__file__).parent / "results" / "train.json"
CUDA = torch.device("cuda")
# First match wins: (group, parts of kernel names).
GROUPS = (
    ("attention", ("sdpa", "flash", "fmha", "attention", "flex")),
    ("fused MLP", ("_leaky_square_up", "_leaky_square_slope")),
    ("fused loss", ("_nats_and_slopes",)),
    ("fused heads", ("_split_heads", "_join_heads")),
    ("matmul", ("nvjet", "gemm", "cutlass", "xmma", "cublas", "splitk")),
    ("elementwise, compiled", ("triton",)),
    ("optimizer lists", ("multi_tensor", "fused_adam")),
    ("copies", ("memcpy", "memset", "copy", "fill")),
)
# Kernel -> the functions to put in place of others: (module, name, plain twin).
TWINS: dict[str, list[tuple[Any, str, Any]]] = {
    "heads": [(heads, "fused_split_heads", heads.plain_split_heads)],
    "mlp": [(mlp, "_can_fuse", lambda x, up: False)],
    "loss": [
        (
            loss,
            "fused_cross_entropy",
            lambda hidden, weight, targets, **options: loss.plain_cross_entropy(
                hidden, weight, None, targets, **options
            ),
        )
    ],
}
MEASURES = ("shape", "scaling", "documents", "gains")
NUM_TOP = 40


class Candidate:
    """A recipe on its data."""

    def __init__(
        self,
        name: str,
        data: Path,
        *,
        looping: bool = True,
        documents: bool = False,
        **changes: Any,
    ) -> None:
        model_config, config = configs_of(name, data)
        self.model_config = dataclasses.replace(model_config, document_mask=documents)
        self.config = dataclasses.replace(config, **changes)
        self._loader = TrainBatches(
            open_shards(data, "train"),
            bos_id=self.model_config.bos_id,
            batch_tokens=self.config.batch_tokens,
            seq_len=self.config.seq_len,
            seed=self.config.seed,
        )
        self.rehearsal = Rehearsal(self.model_config, self.config, self._loader.next)
        self.phases = {"plain": True}
        if self.model_config.loop:
            self.phases = {"plain": False} | ({"looping": True} if looping else {})
        self.start_up_s = 0.0

    def warm_up(self) -> None:
        """Compile all phases."""
        started_at = now_s()
        for is_looping in self.phases.values():
            self.rehearsal.step_seconds(1, is_looping=is_looping)
        self.start_up_s = now_s() - started_at

    def measure(self, steps: int, ceiling: float) -> dict[str, Any]:
        """Return the figures of every phase."""
        figures = {
            "parameters": sum(p.numel() for p in self.rehearsal.model.parameters()),
            "batch_tokens": self.config.batch_tokens,
            "micro_batch_tokens": self.config.micro_batch_tokens,
            "seq_len": self.config.seq_len,
            "start_up_s": round(self.start_up_s, 1),
        }
        return figures | {label: self._phase(label, steps, ceiling) for label in self.phases}

    def close(self) -> None:
        """Let go of the memory, the compiled code and the loader's thread."""
        self._loader.close()
        del self.rehearsal
        torch.compiler.reset()
        torch.cuda.empty_cache()

    def _phase(self, label: str, steps: int, ceiling: float) -> dict[str, Any]:
        is_looping = self.phases[label]
        torch.cuda.reset_peak_memory_stats()
        halves_s = [self.rehearsal.step_seconds(steps, is_looping=is_looping) for _ in range(2)]
        rate = self.config.batch_tokens / (sum(halves_s) / 2)
        flops = self._flops_per_token(is_looping) * rate
        return {
            "tokens_per_second": round(rate),
            "step_ms": [round(1e3 * half_s, 1) for half_s in halves_s],
            "model_flops": flops,
            "matmul_share": flops / ceiling,
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
            "profile": profile_of(lambda: self.rehearsal.step_seconds(1, is_looping=is_looping)),
        }

    def _flops_per_token(self, is_looping: bool) -> float:
        """Return 6 N + 6 L T D: each matrix as often as visited, half of the attention square."""
        model, config = self.rehearsal.model, self.model_config
        roles = parameter_roles(model)
        visits = config.visits if is_looping else tuple(range(config.num_layers))
        weights = 0
        for name, parameter in model.named_parameters():
            times = visits.count(int(name.split(".")[1])) if name.startswith("blocks.") else 1
            if roles[name] in (Role.ATTN, Role.MLP, Role.PROJ, Role.EMBED):
                weights += times * parameter.numel()
        return 6.0 * weights + 6.0 * len(visits) * self.config.seq_len * config.model_dim


def configs_of(name: str, data: Path) -> tuple[ModelConfig, TrainConfig]:
    """Return a recipe's model and training, with the ids of the prepared text."""
    recipe, manifest = load_recipe(name, ["track=golf-1gpu"]), load_manifest(data)
    model = dataclasses.replace(
        recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    return model, dataclasses.replace(recipe.train, checkpoint_seconds=0.0, dev_tokens=0)


def profile_of(work: Any) -> dict[str, Any]:
    """Return the GPU milliseconds of `work`, which makes three steps, for one step."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
    rows = [r for r in profiler.key_averages() if r.device_type.name == "CUDA"]
    groups: dict[str, float] = {}
    for row in rows:
        group = group_of(row.key)
        groups[group] = groups.get(group, 0.0) + row.self_device_time_total / 3e3
    top = sorted(rows, key=lambda row: -row.self_device_time_total)[:NUM_TOP]
    return {
        "groups_ms": {name: round(ms, 2) for name, ms in sorted(groups.items())},
        "busy_ms": round(sum(groups.values()), 1),
        "launches": sum(row.count for row in rows) // 3,
        "top": [[r.key[:120], r.count // 3, round(r.self_device_time_total / 3e3, 2)] for r in top],
    }


def group_of(kernel: str) -> str:
    """Return the group of a kernel by its name."""
    lowered = kernel.lower()
    for group, parts in GROUPS:
        if any(part in lowered for part in parts):
            return group
    return "other"


def measure(name: str, data: Path, steps: int, ceiling: float, **changes: Any) -> dict[str, Any]:
    """Return the figures of one recipe; changes: see Candidate, and keys of `[train]`."""
    candidate = Candidate(name, data, **changes)
    candidate.warm_up()
    figures = candidate.measure(steps, ceiling)
    candidate.close()
    return figures


def scaling(name: str, data: Path, steps: int, ceiling: float) -> dict[str, dict[str, Any]]:
    """Return the figures with half the tokens in one forward, and at half and double length."""
    _, config = configs_of(name, data)
    changes = {
        "half a forward": half_a_forward(name, data),
        "half the length": {"seq_len": config.seq_len // 2},
        "double length": {"seq_len": config.seq_len * 2},
    }
    return {
        label: measure(name, data, steps, ceiling, looping=False, **change)
        for label, change in changes.items()
    }


def gains(
    name: str, data: Path, steps: int, ceiling: float, kernels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the figures with all kernels, then with one at a time replaced by its plain twin.

    With half the tokens in one forward, which fit without any of them.
    """
    half = half_a_forward(name, data)
    found = {"with all": measure(name, data, steps, ceiling, looping=False, **half)}
    for kernel in kernels:
        with contextlib.ExitStack() as stack:
            for module, attribute, twin in TWINS[kernel]:
                stack.enter_context(mock.patch.object(module, attribute, twin))
            found[f"without {kernel}"] = measure(name, data, steps, ceiling, looping=False, **half)
    return found


def half_a_forward(name: str, data: Path) -> dict[str, Any]:
    """Return the change that puts half as many tokens in one forward."""
    _, config = configs_of(name, data)
    return {"micro_batch_tokens": (config.micro_batch_tokens or config.batch_tokens) // 2}


def run_peer(script: Path, settings: Sequence[str], data: Path) -> dict[str, Any]:
    """Run a script of the contest on the shards; return what its log says of its speed.

    It is given the shards, their ids' number and their tokenizer, which must be SentencePiece's.
    """
    tokenizer = load_run_tokenizer(data)
    if not isinstance(tokenizer, SentencePieceTokenizer | OfficialTokenizer):
        sys.exit(f"'{data}' has tokenizer '{tokenizer.kind}', scripts read SentencePiece's")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tokenizer.model"
        model.write_bytes(write_model(tokenizer.model))
        for split, name in (("train", "train"), ("dev", "val")):
            for shard in data.glob(f"{split}_*.bin"):
                link = Path(folder) / shard.name.replace(split, f"fineweb_{name}", 1)
                link.symlink_to(shard.resolve())
        given = {"DATA_PATH": folder, "TOKENIZER_PATH": str(model)}
        given["VOCAB_SIZE"] = str(tokenizer.vocab_size)
        environment = os.environ | given | dict(setting.split("=", 1) for setting in settings)
        done = subprocess.run(
            [sys.executable, script.resolve()],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    step_ms = re.findall(r"step_avg:([0-9.]+)ms", done.stdout)
    batch_tokens = re.findall(r"train_batch_tokens:(\d+)", done.stdout)
    if done.returncode or not step_ms or not batch_tokens:
        sys.exit(f"{script} said no step_avg and train_batch_tokens:\n{done.stderr[-2000:]}")
    return {
        "script": script.name,
        "settings": list(settings),
        "step_ms": float(step_ms[-1]),
        "batch_tokens": int(batch_tokens[-1]),
        "tokens_per_second": round(1e3 * int(batch_tokens[-1]) / float(step_ms[-1])),
    }


def take(what: str, name: str, data: Path, args: argparse.Namespace, ceiling: float) -> Any:
    """Return and print one kind of figures of one recipe."""
    if what == "scaling":
        found = scaling(name, data, args.steps, ceiling)
    elif what == "gains":
        found = gains(name, data, args.steps, ceiling, args.kernels)
    else:
        found = {"": measure(name, data, args.steps, ceiling, documents=what == "documents")}
    for label, figures in found.items():
        show(f"{name} {what} {label}".rstrip(), figures)
    return found.get("", found)


def main() -> None:
    """Take what was asked for and put it into the result file, beside what stands there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="RECIPE=FOLDER")
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=["shape"])
    parser.add_argument("--kernels", nargs="+", choices=TWINS, default=list(TWINS))
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each half")
    parser.add_argument("--peer", nargs="+", metavar=("PATH", "NAME=VALUE"), default=[])
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    ceiling = matmul_flops(torch.bfloat16, CUDA, 8192)
    print(f"bf16 8192^3 matmul: {ceiling / 1e12:.0f} TFLOP/s")
    where = {
        "gpu": torch.cuda.get_device_name(),
        "matmul_flops": ceiling,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }

    def keep(key: str, found: dict[str, Any]) -> None:
        stored = read_json(args.json) if args.json.exists() else {}
        write_json(args.json, stored | {key: where | found})

    pairs = [pair.split("=", 1) for pair in args.data]
    for name, folder in pairs:
        for what in args.measure:
            found = take(what, name, Path(folder), args, ceiling)
            keep(name if what == "shape" else f"{name} {what}", found)
    if args.peer:
        found = run_peer(Path(args.peer[0]), args.peer[1:], Path(pairs[0][1]))
        print(f"{found['script']}: {found['tokens_per_second']:,} tokens/s")
        keep("peer", found)


def show(name: str, figures: dict[str, Any]) -> None:
    """Print the figures of a recipe, a line a phase."""
    for label in ("plain", "looping"):
        if label in figures:
            phase = figures[label]
            print(
                f"{name} {label}: {phase['tokens_per_second']:,} tokens/s, "
                f"{phase['matmul_share']:.1%} of the ceiling, "
                f"{phase['peak_memory_bytes'] / 2**30:.1f} GiB, {phase['profile']['groups_ms']}"
            )


if __name__ == "__main__":
    main()
