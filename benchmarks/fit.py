"""Fill caps with `pack.fit`: how much stays empty, seconds, and what the file costs in bpb.

    python benchmarks/fit.py [RUN]

RUN is a run folder with weights.safetensors and data/; its network is packed by GPTQ with a price
on bits, as the recipe of the demo has it, without and with low-rank repairs. Its 8-bit grids fill
no megabyte: the caps of 1 and 2 MB are for a network of Gaussian weights. "impossible" is a cap far
below what the coarsest grid needs: the error names the smallest size, and that size is tried then.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pack import gaussian_weights
from parbyte.base.clock import Stopwatch
from parbyte.base.errors import CapError
from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer
from quantize import Subject

RESULT = Path(__file__).parent / "results" / "fit.json"
BAR_UNUSED_PERCENT, BAR_TAX_BPB = 0.1, 0.010
FIT = PackConfig(fit=True)
GPTQ = QuantConfig(method="gptq", rate_weight=0.1)
WAYS = {
    "gptq, rate": GPTQ,
    "gptq, rate, lqer": QuantConfig(method="gptq", rate_weight=0.1, lqer_rank=4),
}
DEMO_CAPS = (250_000, 400_000, 500_000)
NOISE_CAPS = (500_000, 1_000_000, 2_000_000)
IMPOSSIBLE_CAP = 20_000
NOISE = ModelConfig(
    vocab_size=257, bos_id=256, num_layers=4, model_dim=256, num_heads=4, mlp_dim=768
)


def main() -> None:
    """Fill every cap; keep and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    subject = Subject(given.run)
    float_bpb = subject.float_bpb()
    result: dict[str, Any] = {
        "hardware": describe_machine(),
        "versions": describe_versions(),
        "float_bpb": float_bpb,
        "bar_unused_percent": BAR_UNUSED_PERCENT,
        "bar_tax_bpb": BAR_TAX_BPB,
    }
    for way, quant in WAYS.items():

        def pack(cap_bytes: int, quant: QuantConfig = quant) -> int:
            return subject.pack(quant, FIT, cap_bytes)["bytes"]

        rows = [filled(pack, cap_bytes) | tax(subject, float_bpb) for cap_bytes in DEMO_CAPS]
        keep(result, f"demo: {way}", rows)
        keep(result, f"demo: {way}, impossible", refused(pack))
    keep(result, "noise: nearest", [filled(pack_noise, cap_bytes) for cap_bytes in NOISE_CAPS])
    keep(result, "noise: nearest, impossible", refused(pack_noise))


def keep(result: dict[str, Any], name: str, figures: Any) -> None:
    """Print one part's figures, and store all so far."""
    print(name, figures, flush=True)
    result[name] = figures
    write_json(RESULT, result)


def filled(pack: Callable[[int], int], cap_bytes: int) -> dict[str, Any]:
    """Pack under a cap and say what is left of it."""
    watch = Stopwatch()
    num_bytes = pack(cap_bytes)
    seconds = round(watch.elapsed_s(), 1)
    unused = round(100 * (1 - num_bytes / cap_bytes), 4)
    return {"cap": cap_bytes, "bytes": num_bytes, "unused_percent": unused, "seconds": seconds}


def tax(subject: Subject, float_bpb: float) -> dict[str, float]:
    """Return what the file packed last costs against the float weights."""
    bpb = subject.measure()
    return {"bpb": bpb, "above_float": round(bpb - float_bpb, 4)}


def refused(pack: Callable[[int], int]) -> dict[str, Any]:
    """Ask for the impossible, then for the smallest size that the error names."""
    try:
        pack(IMPOSSIBLE_CAP)
    except CapError as error:
        named = re.search(r"smallest possible is ([\d,]+) bytes", str(error))
        assert named is not None, str(error)
        smallest = int(named[1].replace(",", ""))
        return {"error": str(error), "smallest": smallest, "bytes_there": pack(smallest)}
    raise AssertionError(f"a file of {IMPOSSIBLE_CAP:,} bytes was made")


def pack_noise(cap_bytes: int) -> int:
    """Pack Gaussian weights of different size by row; return the bytes."""
    weights = gaussian_weights(NOISE)
    blob = build_artifact(weights, NOISE, ByteTokenizer(), {}, QuantConfig(), FIT, cap_bytes, {})
    return len(blob)


if __name__ == "__main__":
    main()
