"""Time what large models must not be slow at: rounding 27 M weights by GPTQ, decoding 36 M.

    python benchmarks/large.py [--part gptq|mix|range]

No trained model is needed: weights are Gaussian with columns of uneven size, Hessians those of
random inputs. gptq: all matrices of the recipe golf-baseline's 512 columns in 11 layers of MLP
3 x 512, Hessians given. mix, range: the shape of golf-record (11 layers, MLP 4 x 512, 8,192
tokens), steps of 0.41 deviations (3.3 bits), each tensor coded once by that coder and decoded.
Beside the seconds on the wall stand those of the processors: on a machine that others use too, only
these say what the work is.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from parbyte.base.clock import Stopwatch
from parbyte.base.files import read_json, write_json
from parbyte.base.machine import describe_machine, describe_versions, num_cores
from parbyte.pack.tensors import Layout, expand_codes, shrink_codes
from parbyte.quant.gptq import factorize, gptq
from parbyte.quant.grid import Codes
from parbyte.quant.rounding import round_to_nearest, std_scale

RESULT = Path(__file__).parent / "results" / "large.json"
LAYERS, DIM, KV_DIM = 11, 512, 256
STEP_STD = 0.41
BAR_GPTQ_S, BAR_DECODE_S = 60.0, 10.0


def main() -> None:
    """Time the parts that are asked for; keep and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("gptq", "mix", "range"), action="append")
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args()
    result = read_json(given.json) if given.json.is_file() else {}
    result |= {"hardware": describe_machine(), "versions": describe_versions()}
    result["threads"] = torch.get_num_threads()
    for part in given.part or ("gptq", "mix", "range"):
        figures = time_gptq() if part == "gptq" else time_decoding(part)
        result[part] = figures
        write_json(given.json, result)
        print(part, figures, flush=True)


def shapes(mlp_dim: int, vocab_size: int) -> list[tuple[int, int]]:
    """Return the matrices of all layers, and of the token table."""
    layer = [(DIM, DIM), (KV_DIM, DIM), (KV_DIM, DIM), (DIM, DIM), (mlp_dim, DIM), (DIM, mlp_dim)]
    return [*layer * LAYERS, (vocab_size, DIM)]


def noise(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Return Gaussian weights whose columns differ in size by a factor of 1.2 or so."""
    generator = torch.Generator().manual_seed(seed)
    spread_C = torch.exp(0.2 * torch.randn(shape[1], generator=generator))
    return torch.randn(shape, generator=generator) * spread_C


def quantized(weight: torch.Tensor) -> Codes:
    """Return codes of 8 bits whose steps are 0.41 deviations of a row."""
    return round_to_nearest(weight, std_scale(weight, 8, 3, 127 * STEP_STD), 8)


def time_gptq() -> dict[str, Any]:
    """Factor every Hessian and round every matrix, one after another."""
    num_weights, seconds, cpu_seconds = 0, 0.0, 0.0
    for seed, shape in enumerate(shapes(mlp_dim=3 * DIM, vocab_size=2048)):
        weight = noise(shape, seed)
        inputs = noise((2 * shape[1], shape[1]), seed + 1000).double()
        hessian = inputs.T @ inputs / len(inputs)
        watch, cpu_start = Stopwatch(), time.process_time()
        factor = factorize(hessian, 0.01, act_order=True, warn=print)
        gptq(weight, quantized(weight), factor)
        seconds += watch.elapsed_s()
        cpu_seconds += time.process_time() - cpu_start
        num_weights += weight.numel()
    return {
        "weights": num_weights,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "bar_seconds": BAR_GPTQ_S,
    }


def time_decoding(coder: str) -> dict[str, Any]:
    """Decode all tensors, as many at once as there are cores, as an artifact is loaded."""
    coded = [quantized(noise(shape, seed)) for seed, shape in enumerate(shapes(4 * DIM, 8192))]

    def shrink(codes: Codes) -> Any:
        return shrink_codes(codes, (coder,), Layout(coder, False))

    # The first call of a kernel compiles it, or fetches it from the cache.
    expand_codes(shrink(coded[1]), coded[1])
    with ThreadPoolExecutor(num_cores()) as pool:
        streams = list(pool.map(shrink, coded))
        watch, cpu_start = Stopwatch(), time.process_time()
        restored = list(pool.map(expand_codes, streams, coded))
        seconds, cpu_seconds = watch.elapsed_s(), time.process_time() - cpu_start
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(restored, coded, strict=True))
    num_weights = sum(codes.codes.numel() for codes in coded)
    num_bytes = sum(len(s.codes.payload) + len(s.scale.payload) for s in streams)
    return {
        "weights": num_weights,
        "bytes": num_bytes,
        "bits_per_weight": round(8 * num_bytes / num_weights, 4),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "bar_seconds": BAR_DECODE_S,
    }


if __name__ == "__main__":
    main()
