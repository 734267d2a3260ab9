"""Feed a long stream to the exact n-gram counts: tokens/s, and the memory that they keep to.

    python benchmarks/ngram.py                       10 million tokens, order 22, 64 MiB
    python benchmarks/ngram.py --tokens 2000000 --order 8
    python benchmarks/ngram.py --lanes 256 --tokens 1000000      the stage's two laws on many lanes

The tokens are the bytes of the built-in text, over and over, one in twenty replaced by a random
one, so that long contexts come back and new ones never end.

table   each token is priced by all orders, then counted in all of them: no whole rows
stage   the stage of a recipe: a whole row for each token, over a row below that knows nothing
token   the same with many lanes, which count each token at once, in portable arithmetic
chunk   the same, but all lanes are counted chunk by chunk, in torch
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions, process_peak_bytes
from parbyte.kernels.portable.counts import (
    COUNT,
    HEAD,
    KINDS,
    LAST,
    LEAF,
    LONGER,
    MAX_ORDER,
    MOST_WRITES,
    find_follower,
    learn_place_,
)
from parbyte.kernels.portable.evidence import Experts, counts_longer, find_path_
from parbyte.kernels.portable.jit import compiled
from parbyte.predict.batch_ngram import BatchNgramPredictor
from parbyte.predict.expert_config import NgramConfig
from parbyte.predict.mix import MixPredictor, as_mix, make_room_, new_experts
from parbyte.predict.predictor import Predictor
from parbyte.text.builtin import kjv_chapters

RESULTS = Path(__file__).parent / "results"
VOCAB, BOS, CHUNK, REPLACED = 257, 256, 4096, 0.05
LANES_CHUNK = 64


class Uniform(Predictor):
    """A predictor that knows nothing."""

    is_portable = True

    def __init__(self, lanes: int, chunk: int) -> None:
        self.vocab_size, self.chunk = VOCAB, chunk
        self._rows_BTV = torch.full((lanes, chunk, VOCAB), -math.log(VOCAB))

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor."""
        return self._rows_BTV[:, : tokens_BT.shape[1]]

    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor."""
        super().observe(chunk_BT)

    def restore(self) -> None:
        """See Predictor."""
        super().restore()


def main() -> None:
    """Walk twice, print the figures and store them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--order", type=int, default=22)
    parser.add_argument("--memory", type=int, default=NgramConfig().memory, help="bytes")
    parser.add_argument("--lanes", type=int, default=1, help="more than 1: the two laws alone")
    parser.add_argument("--json", type=Path, help="where to store the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stream_1N, config = tokens(args.tokens), NgramConfig(order=args.order, memory=args.memory)
    if args.lanes > 1:
        parts = time_laws(stream_1N, config, args.lanes)
    else:
        parts = {
            "table": time_table(stream_1N, config),
            "stage": time_stage(stream_1N, config, CHUNK),
        }
        bits = [part["bits_per_token"] for part in parts.values()]
        assert math.isclose(*bits, rel_tol=1e-4)
    figures = {
        **parts,
        "tokens": args.tokens,
        "lanes": args.lanes,
        "order": args.order,
        "memory_key_bytes": args.memory,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    name = "ngram_lanes.json" if args.lanes > 1 else "ngram.json"
    write_json(args.json or RESULTS / name, figures)
    for name, part in parts.items():
        print(
            f"{name}: {args.tokens:,} tokens, {part['tokens_per_s']:,.0f} a second; "
            f"at most {part['most_count_bytes']:,} of {args.memory:,} bytes; "
            f"{part['bits_per_token']:.4f} bits a token"
        )


def time_laws(stream_1N: Tensor, config: NgramConfig, lanes: int) -> dict[str, Any]:
    """Cut the stream into lanes; return speed, memory and bits of both laws of the stage."""
    length = stream_1N.numel() // lanes
    lanes_BN = stream_1N[0, : lanes * length].view(lanes, length)
    return {
        law: time_stage(lanes_BN, replace(config, learn=law), LANES_CHUNK)
        for law in ("token", "chunk")
    }


def time_table(stream_1N: Tensor, config: NgramConfig) -> dict[str, Any]:
    """Price and count the stream token by token; return speed, memory and bits."""
    tokens_N, nats = stream_1N[0].numpy(), 0.0
    path_K = np.zeros(MAX_ORDER + 1, np.int64)
    experts = new_experts(as_mix(config), 1, VOCAB, CHUNK, BOS)
    experts = experts._replace(undo=np.zeros((2 * MOST_WRITES, 2), np.int64))
    feed_(experts, tokens_N[:0], path_K)
    make_room_(experts, len(experts.history))
    experts.length[0] = 1
    watch = Stopwatch()
    for start in range(0, len(tokens_N), CHUNK):
        nats += feed_(experts, tokens_N[start : start + CHUNK], path_K)
        make_room_(experts, CHUNK)
    return {
        "tokens_per_s": len(tokens_N) / watch.elapsed_s(),
        "most_count_bytes": experts.cells.nbytes + experts.history.nbytes,
        "bits_per_token": nats / len(tokens_N) / math.log(2),
    }


@compiled(is_lean=True)
def feed_(experts: Experts, tokens_T: NDArray[np.int64], path_K: NDArray[np.int64]) -> float:
    """Query and update all orders, one token after the other; return the nats of all."""
    nats = 0.0
    for token in tokens_T:
        nats -= np.log(price(experts, token, path_K))
        place = experts.length[0]
        experts.history[place] = token
        cells, undo = experts.cells, experts.undo
        learn_place_(cells, undo, experts.history, place, 1, BOS, 0, experts.orders[0], 0)
        experts.length[0] = place + 1
        undo[0, 0] = 0
    return nats


@compiled(is_lean=True)
def price(experts: Experts, token: int, path_K: NDArray[np.int64]) -> float:
    """Return Kneser and Ney's probability of a token over an even row, from its counts alone."""
    cells, discount, prob = experts.cells, experts.strengths[0], 1.0 / VOCAB
    for order in range(1, find_path_(experts, 0, 0, path_K) + 1):
        node, seen = path_K[order], 0.0
        if cells[node + HEAD] == LEAF:
            seen = 1.0 if experts.history[cells[node + LAST]] == token else 0.0
        else:
            follower = find_follower(cells, node, token)
            field = KINDS if counts_longer(experts, 0, order) else COUNT
            seen = np.float64(cells[follower + field]) if follower >= 0 else 0.0
        whole = cells[node + LONGER] if counts_longer(experts, 0, order) else cells[node + COUNT]
        prob = (max(seen - discount, 0.0) + discount * cells[node + KINDS] * prob) / whole
    return prob


def time_stage(stream_BN: Tensor, config: NgramConfig, chunk: int) -> dict[str, Any]:
    """Price and learn the stream by whole rows; return speed, memory and bits."""
    kind = BatchNgramPredictor if config.learn == "chunk" else MixPredictor
    predictor = kind(Uniform(len(stream_BN), chunk), config, BOS)
    predictor.log_probs(stream_BN[:, :chunk])
    predictor.restore()
    before, most, nats, watch = process_peak_bytes(), 0, 0.0, Stopwatch()
    for part_BT in stream_BN.split(chunk, dim=1):
        rows_BTV = predictor.log_probs(part_BT)
        nats -= float(rows_BTV.gather(2, part_BT[..., None]).sum(dtype=torch.float64))
        predictor.observe(part_BT)
        most = max(most, predictor.count_bytes())
    assert most <= config.memory, f"{most:,} bytes of {config.memory:,}"
    return {
        "tokens_per_s": stream_BN.numel() / watch.elapsed_s(),
        "most_count_bytes": most,
        "peak_growth_bytes": process_peak_bytes() - before,
        "bits_per_token": nats / stream_BN.numel() / math.log(2),
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
