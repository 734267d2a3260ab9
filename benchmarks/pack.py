"""Measure every coder at several step sizes: bytes and bits a weight against the order-0 entropy.

    python benchmarks/pack.py [RUN] [--coders mix,range,zstd,lzma,brotli]

RUN is a run folder with weights.safetensors; without it, Gaussian weights of the shape of the track
"tiny" are used. One row per step and coder: "excess" is over the order-0 entropy of each tensor's
codes, scales left out; below 0 the coder found structure. "s" is for both layouts of all tensors.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from parbyte.base.clock import Stopwatch
from parbyte.model.config import ModelConfig
from parbyte.model.roles import Role, role_of
from parbyte.pack.header import expected_shapes
from parbyte.pack.tensors import expand_codes, shrink_codes
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes
from parbyte.quant.quantize import quantize_weights

CODERS = "mix,range,zstd,lzma,brotli"
STEPS_STD = (0.25, 0.35, 0.45, 0.6, 0.9)
TINY = ModelConfig(vocab_size=4096, bos_id=4095, logit_bias=True, smear="static")


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description="Measure coders against the entropy.")
    parser.add_argument("run", nargs="?", type=Path, help="run folder with weights.safetensors")
    parser.add_argument("--coders", default=CODERS, help=f"default: {CODERS}")
    arguments = parser.parse_args()
    weights = load_weights(arguments.run) if arguments.run else gaussian_weights()
    matrices = {
        name: weight
        for name, weight in weights.items()
        if weight.ndim > 1 and role_of(name) is not Role.SCALAR
    }
    num_weights = sum(weight.numel() for weight in matrices.values())
    print(f"{num_weights:,} weights in {len(matrices)} matrices of {arguments.run or 'noise'}")
    print("     step  entropy   coder     bytes    bits   excess      s")
    for step in STEPS_STD:
        config = QuantConfig(clip_std_embed=127 * step, clip_std_matrix=127 * step)
        roles = {name: role_of(name) for name in matrices}
        quantized = quantize_weights(matrices, roles, config)
        coded = {name: item for name, item in quantized.items() if isinstance(item, Codes)}
        print_rows(f"{step} std", coded, arguments.coders.split(","))


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights of a run folder."""
    from safetensors.torch import load_file

    return load_file(run / "weights.safetensors")


def gaussian_weights() -> dict[str, torch.Tensor]:
    """Return noise in the shapes of the track "tiny", rows of different deviation."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in expected_shapes(TINY).items():
        spread = torch.exp(0.2 * torch.randn(shape[0], generator=generator))
        noise = torch.randn(shape, generator=generator)
        weights[name] = noise * spread.reshape(-1, *[1] * (len(shape) - 1))
    return weights


def print_rows(step: str, coded: dict[str, Codes], coders: Iterable[str]) -> None:
    """Print one row per coder for codes of one step."""
    num_weights = sum(codes.codes.numel() for codes in coded.values())
    entropy = sum(entropy_bits(codes) for codes in coded.values())
    for coder in coders:
        watch = Stopwatch()
        packed = {name: shrink_codes(codes, (coder,)) for name, codes in coded.items()}
        seconds = watch.elapsed_s()
        for name, streams in packed.items():
            restored = expand_codes(streams, coded[name])
            assert torch.equal(restored.codes, coded[name].codes)
        num_bytes = sum(len(streams.codes.payload) for streams in packed.values())
        excess = 8 * num_bytes / entropy - 1
        print(
            f"{step:>9} {entropy / num_weights:8.4f} {coder:>7} {num_bytes:9,} "
            f"{8 * num_bytes / num_weights:7.4f} {excess:+8.2%} {seconds:6.2f}"
        )


def entropy_bits(codes: Codes) -> float:
    """Return the order-0 entropy of one tensor's codes in bits, without any table."""
    counts = np.unique(codes.codes.numpy(), return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


if __name__ == "__main__":
    main()
