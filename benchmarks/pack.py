"""Measure coders of weights at several step sizes: bytes against the order-0 entropy and rivals.

    python benchmarks/pack.py [RUN] [--json FILE]

RUN is a run folder with weights.safetensors; without it, Gaussian weights of the shape of the track
"tiny" are used. Every tensor's codes are coded as they lie and transposed, the smaller counts;
scales are left out. A row per step and coder: "excess" is over the order-0 entropy of each tensor's
codes, below 0 the coder found structure; "worst" is that of the tensor it serves worst; "parbyte"
is the better of mix and range. "parbyte" in the last column is the largest share of that coder's
bytes that it takes on any tensor of 10,000 weights or more.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zpaq
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.model.config import ModelConfig
from parbyte.model.roles import Role, role_of
from parbyte.pack.header import expected_shapes
from parbyte.pack.streams import expand, shrink
from parbyte.pack.tensors import rows_and_columns
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes
from parbyte.quant.quantize import quantize_weights

RESULT = Path(__file__).parent / "results" / "pack.json"
STEPS_STD = (0.25, 0.35, 0.45, 0.6, 0.9)
TINY = ModelConfig(vocab_size=4096, bos_id=4095, logit_bias=True, smear="static")
OURS = ("mix", "range")
LARGE = 10_000

Table = NDArray[np.uint8]
Sizes = dict[str, int]


def of_the_package(coder: str) -> Callable[[Table], int]:
    """Return what measures a coder of the package, once it has decoded what it coded."""

    def size(table: Table) -> int:
        content, num_columns = table.tobytes(), table.shape[1]
        stream = shrink(content, (coder,), num_columns=num_columns)
        assert expand(stream, len(content), num_columns=num_columns) == content
        return len(stream.payload)

    return size


CODERS: dict[str, Callable[[Table], int]] = {
    **{coder: of_the_package(coder) for coder in (*OURS, "zstd", "lzma", "brotli")},
    "zlib": lambda table: len(zlib.compress(table.tobytes(), 9)),
    "zpaq": lambda table: len(zpaq.compress(table.tobytes(), level=5, threads=1)),
}
"""zstd at 22, lzma extreme, brotli at 11, zlib at 9, zpaq at 5; the first five without headers."""


def main() -> None:
    """Code every tensor by every coder; keep and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="run folder with weights.safetensors")
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    weights = load_weights(arguments.run) if arguments.run else gaussian_weights(TINY)
    matrices = {
        name: weight
        for name, weight in weights.items()
        if weight.ndim > 1 and role_of(name) is not Role.SCALAR
    }
    num_weights = sum(weight.numel() for weight in matrices.values())
    print(f"{num_weights:,} weights in {len(matrices)} matrices of {arguments.run or 'noise'}")
    print("     step  entropy    coder     bytes    bits   excess    worst      s  parbyte")
    steps = {f"{step} std": measure(f"{step} std", matrices, step) for step in STEPS_STD}
    write_json(
        arguments.json,
        {
            "hardware": describe_machine(),
            "versions": describe_versions(),
            "weights": num_weights,
            "source": str(arguments.run or "noise"),
            "steps": steps,
        },
    )


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights of a run folder."""
    from safetensors.torch import load_file

    return load_file(run / "weights.safetensors")


def gaussian_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Return noise in the shapes of a model's weights, rows of different deviation."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in expected_shapes(config).items():
        spread = torch.exp(0.2 * torch.randn(shape[0], generator=generator))
        noise = torch.randn(shape, generator=generator)
        weights[name] = noise * spread.reshape(-1, *[1] * (len(shape) - 1))
    return weights


def measure(step: str, matrices: dict[str, torch.Tensor], step_std: float) -> dict[str, Any]:
    """Code every tensor at one step; print a row per coder and return the same figures."""
    config = QuantConfig(clip_std_embed=127 * step_std, clip_std_matrix=127 * step_std)
    roles = {name: role_of(name) for name in matrices}
    quantized = quantize_weights(matrices, roles, config)
    tables = {name: symbols(item) for name, item in quantized.items() if isinstance(item, Codes)}
    bounds = {name: entropy_bits(table) / 8 for name, table in tables.items()}
    num_weights = sum(table.size for table in tables.values())
    sizes: dict[str, Sizes] = {}
    figures: dict[str, Any] = {"entropy_bits": round(8 * sum(bounds.values()) / num_weights, 4)}
    for coder, size in CODERS.items():
        watch = Stopwatch()
        sizes[coder] = {
            name: min(size(table), size(np.ascontiguousarray(table.T)))
            for name, table in tables.items()
        }
        figures[coder] = row(sizes[coder], bounds) | {"seconds": round(watch.elapsed_s(), 2)}
    sizes["parbyte"] = {name: min(sizes[coder][name] for coder in OURS) for name in tables}
    seconds = sum(figures[coder]["seconds"] for coder in OURS)
    figures["parbyte"] = row(sizes["parbyte"], bounds) | {"seconds": round(seconds, 2)}
    large = [name for name, table in tables.items() if table.size >= LARGE]
    for coder in CODERS:
        share = max(sizes["parbyte"][name] / sizes[coder][name] for name in large)
        figures[coder]["parbyte_takes_percent"] = round(100 * share, 2)
    for coder in (*CODERS, "parbyte"):
        f = figures[coder]
        print(
            f"{step:>9} {figures['entropy_bits']:8.4f} {coder:>8} {f['bytes']:9,} "
            f"{8 * f['bytes'] / num_weights:7.4f} {f['excess_percent']:+7.2f}% "
            f"{f['worst_excess_percent']:+7.2f}% {f['seconds']:6.2f} "
            f"{f.get('parbyte_takes_percent', 100.0):7.2f}%",
            flush=True,
        )
    return figures


def row(sizes: Sizes, bounds: dict[str, float]) -> dict[str, Any]:
    """Return one coder's bytes over all tensors, and how far they lie above the entropy."""
    worst = max(sizes[name] / bounds[name] for name in sizes)
    return {
        "bytes": sum(sizes.values()),
        "excess_percent": round(100 * (sum(sizes.values()) / sum(bounds.values()) - 1), 2),
        "worst_excess_percent": round(100 * (worst - 1), 2),
    }


def symbols(codes: Codes) -> Table:
    """Return the codes of one tensor as the bytes that coders see."""
    centred = codes.codes.numpy().astype(np.int16) + codes.num_symbols // 2
    return centred.astype(np.uint8).reshape(rows_and_columns(tuple(codes.codes.shape)))


def entropy_bits(table: Table) -> float:
    """Return the order-0 entropy of one tensor's codes in bits, without any table."""
    counts = np.unique(table, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


if __name__ == "__main__":
    main()
