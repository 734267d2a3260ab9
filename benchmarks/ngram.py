"""Feed a long stream to the exact n-gram stage: tokens/s, and the memory that it keeps to.

    python benchmarks/ngram.py                       10 million tokens, order 22, 64 MiB
    python benchmarks/ngram.py --tokens 2000000 --order 8

The tokens are the bytes of the built-in text, over and over, one in twenty replaced by a random
one, so that long contexts come back and new ones never end. Below the stage stands a row that
knows nothing.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions, process_peak_bytes
from parbyte.predict.expert_config import NgramConfig
from parbyte.predict.mix import MixPredictor
from parbyte.predict.predictor import Predictor
from parbyte.text.builtin import kjv_chapters

RESULT = Path(__file__).parent / "results" / "ngram.json"
VOCAB, BOS, CHUNK, REPLACED = 257, 256, 4096, 0.05


class Uniform(Predictor):
    """A predictor that knows nothing."""

    is_portable = True

    def __init__(self) -> None:
        self.vocab_size, self.chunk = VOCAB, CHUNK
        self._rows_1TV = torch.full((1, CHUNK, VOCAB), -math.log(VOCAB))

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor."""
        return self._rows_1TV[:, : tokens_BT.shape[1]]

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor."""
        super().observe(chunk_BT)

    def restore(self) -> None:
        """See Predictor."""
        super().restore()


def main() -> None:
    """Walk once, print the figures and store them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--order", type=int, default=22)
    parser.add_argument("--memory", type=int, default=NgramConfig().memory, help="bytes")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    figures = {
        **walk(args.tokens, NgramConfig(order=args.order, memory=args.memory)),
        "order": args.order,
        "memory_key_bytes": args.memory,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    write_json(args.json, figures)
    print(
        f"{figures['tokens']:,} tokens, {figures['tokens_per_s']:,.0f} a second; counts and "
        f"history at most {figures['most_count_bytes']:,} of {args.memory:,} bytes; "
        f"{figures['bits_per_token']:.3f} bits a token"
    )


def walk(num_tokens: int, config: NgramConfig) -> dict[str, Any]:
    """Price and learn the stream; return speed, memory and bits."""
    torch.set_num_threads(1)
    stream_1N, predictor = tokens(num_tokens), MixPredictor(Uniform(), config, BOS)
    predictor.log_probs(stream_1N[:, :CHUNK])
    predictor.restore()
    before, most, nats, watch = process_peak_bytes(), 0, 0.0, Stopwatch()
    for part_1T in stream_1N.split(CHUNK, dim=1):
        rows_1TV = predictor.log_probs(part_1T)
        nats -= float(rows_1TV.gather(2, part_1T[..., None]).sum(dtype=torch.float64))
        predictor.observe(part_1T)
        most = max(most, predictor.count_bytes())
    assert most <= config.memory, f"{most:,} bytes of {config.memory:,}"
    return {
        "tokens": num_tokens,
        "tokens_per_s": num_tokens / watch.elapsed_s(),
        "most_count_bytes": most,
        "peak_growth_bytes": process_peak_bytes() - before,
        "bits_per_token": nats / num_tokens / math.log(2),
    }


def tokens(count: int) -> Tensor:
    """Return int64[1, count]: the text over and over, some bytes replaced."""
    text = np.frombuffer(b"".join(kjv_chapters()), np.uint8)
    rng = np.random.default_rng(0)
    stream_N = np.resize(text, count).astype(np.int64)
    is_replaced_N = rng.random(count) < REPLACED
    stream_N[is_replaced_N] = rng.integers(0, 256, int(is_replaced_N.sum()))
    return torch.from_numpy(stream_N)[None]


if __name__ == "__main__":
    main()
