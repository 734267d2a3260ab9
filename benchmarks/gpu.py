"""Train recipes on one GPU and print tokens/s, the share of the matmul ceiling and peak memory.

    python benchmarks/gpu.py --data DATA --recipes golf-baseline pr1430-base --seconds 100

DATA is a folder made by `parbyte data` (any text, vocabulary of 1,024). Also compares the loss of
one batch on the CPU (float32) and on the GPU (bfloat16 and float32).
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from parbyte.base.clock import now_s
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles
from parbyte.recipe import load_recipe
from parbyte.text.batches import TrainBatches
from parbyte.text.manifest import load_manifest
from parbyte.text.shards import open_shards
from parbyte.train.loop import train


def main() -> None:
    """Measure the ceiling, then every recipe, and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=["golf-baseline", "pr1430-base"])
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "matmul_flops": matmul_ceiling(),
    }
    print(f"bf16 8192^3 matmul: {figures['matmul_flops'] / 1e12:.0f} TFLOP/s")
    for name in args.recipes:
        figures[name] = measure_recipe(name, args.data, args.seconds, figures["matmul_flops"])
        print(name, figures[name])
        if args.json:
            write_json(args.json, figures)


def matmul_ceiling(size: int = 8192, repeats: int = 30) -> float:
    """Return FLOP/s of a bfloat16 matrix product on random data."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    started_at = now_s()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (now_s() - started_at)


def measure_recipe(name: str, data: Path, seconds: float, ceiling: float) -> dict[str, Any]:
    """Train one recipe for a while on the prepared text; return its figures."""
    recipe = load_recipe(name, ["track=golf-1gpu"])
    manifest = load_manifest(data)
    model = dataclasses.replace(
        recipe.model, vocab_size=manifest.vocab_size, bos_id=manifest.bos_id
    )
    config = dataclasses.replace(recipe.train, seconds=seconds, checkpoint_seconds=0.0)
    losses = compare_losses(model, data, config.seq_len)
    torch.compiler.reset()
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        result = train(model, config, data, Path(folder), world=World(), console=Console())
    flops = flops_per_token(model, config.seq_len) * result.tokens_per_second
    return {
        "tokens_per_second": round(result.tokens_per_second),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "model_flops": flops,
        "matmul_share": flops / ceiling,
        "peak_memory_bytes": result.peak_memory_bytes,
        "final_loss": result.final_loss,
        "dev_bpb": result.dev_bpb,
        **losses,
    }


def flops_per_token(model: ModelConfig, seq_len: int) -> float:
    """Return 6 N + 6 L T D: matrices forward and backward, causal half of the attention square."""
    gpt = GPT(model, seed=None)
    roles = parameter_roles(gpt)
    counted = (Role.ATTN, Role.MLP, Role.PROJ, Role.EMBED)
    weights = sum(p.numel() for n, p in gpt.named_parameters() if roles[n] in counted)
    return 6.0 * weights + 6.0 * model.num_layers * seq_len * model.model_dim


def compare_losses(model: ModelConfig, data: Path, seq_len: int) -> dict[str, float]:
    """Return the loss of one batch on the CPU and on the GPU, same weights, same tokens."""
    batches = TrainBatches(
        open_shards(data, "train"),
        bos_id=model.bos_id,
        batch_tokens=seq_len,
        seq_len=seq_len,
        seed=1,
    )
    inputs, targets = (torch.from_numpy(a) for a in batches.next())
    batches.close()
    losses = {}
    for label, device, dtype in (
        ("cpu_float32_loss", "cpu", torch.float32),
        ("gpu_float32_loss", "cuda", torch.float32),
        ("gpu_bfloat16_loss", "cuda", torch.bfloat16),
    ):
        gpt = GPT(model, seed=0).to(device)
        gpt.set_compute_dtype(dtype)
        with torch.no_grad():
            losses[label] = gpt(inputs.to(device), targets.to(device)).item()
    return losses


if __name__ == "__main__":
    main()
