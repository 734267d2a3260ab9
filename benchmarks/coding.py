"""Time coding in both directions and compare its bits with what the model measures.

    python benchmarks/coding.py runs/demo/model.parbyte runs/demo/data/heldout.txt

Each round encodes and decodes in turn, so that other work on the machine meets both alike. Also
says where a step of the torch engine spends its time: network, softmax, weights, coder.
"""

import argparse
import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parbyte.base.clock import now_s
from parbyte.base.files import write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.units import nats_to_bits
from parbyte.codec.compress import CodecResult, compress_file, decompress_file
from parbyte.codec.conditions import coding_arithmetic
from parbyte.codec.config import CodecConfig
from parbyte.codec.freqs import to_freqs
from parbyte.codec.rangecoder import Encoder
from parbyte.pack.artifact import load_artifact, with_predict
from parbyte.scoring import measure_file

RUN = Path("runs/demo")
RESULT = Path(__file__).parent / "results" / "coding.json"
TOKENS_PER_S_BAR, ASYMMETRY_BAR, EXCESS_BAR = 2500.0, 0.15, 0.002
STEPS = 600


def main() -> None:
    """Run all rounds, print the figures and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, nargs="?", default=RUN / "model.parbyte")
    parser.add_argument("text", type=Path, nargs="?", default=RUN / "data" / "heldout.txt")
    parser.add_argument("--limit-bytes", type=int, default=0, help="of the text; 0: all of it")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=CodecConfig().threads)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    config = CodecConfig(lanes=args.lanes, threads=args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        source, artifact = Path(scratch) / "text", Path(scratch) / "network.parbyte"
        source.write_bytes(args.text.read_bytes()[: args.limit_bytes or None])
        artifact.write_bytes(network_alone(args.artifact))
        figures = {
            **round_trips(artifact, source, config, args.rounds),
            "torch_step_ms": step_parts(artifact, config),
            "lanes": config.lanes,
            "threads": config.threads,
            "machine": describe_machine(),
            "versions": describe_versions(),
        }
    print(json.dumps(figures, indent=2))
    write_json(args.json, figures)


def network_alone(path: Path) -> bytes:
    """Return the artifact without its stack: what stands over the network has its own speed."""
    data, predict = path.read_bytes(), load_artifact(path).predict
    return with_predict(data, {**predict, "stack": []}, len(data))


def round_trips(artifact: Path, source: Path, config: CodecConfig, rounds: int) -> dict[str, Any]:
    """Return speeds (the median round), their ratio, and coded against measured bits per byte."""
    console = Console()
    packed, restored = source.with_suffix(".pby"), source.with_suffix(".back")
    encoded: list[CodecResult] = []
    decoded: list[CodecResult] = []
    for _ in range(rounds):
        encoded.append(compress_file(artifact, source, packed, config, console))
        decoded.append(decompress_file(artifact, packed, restored, console))
        assert restored.read_bytes() == source.read_bytes()
    result = encoded[0]
    ledger, _ = measure_file(artifact, source, config, console)
    encode_s = statistics.median(each.seconds for each in encoded)
    decode_s = statistics.median(each.seconds for each in decoded)
    ideal_bytes = nats_to_bits(result.nats) / 8
    slower = min(result.tokens / encode_s, result.tokens / decode_s)
    excess = result.bpb / ledger.bpb - 1
    return {
        "text_bytes": result.text_bytes,
        "tokens": result.tokens,
        "bitstream_bytes": result.bitstream_bytes,
        "encode_tokens_per_s": result.tokens / encode_s,
        "decode_tokens_per_s": result.tokens / decode_s,
        "decode_over_encode_seconds": decode_s / encode_s,
        "measured_bpb": ledger.bpb,
        "coded_bpb": result.bpb,
        "coded_over_measured": excess,
        "overhead_bytes": result.bitstream_bytes - ideal_bytes,
        "overhead_share": result.bitstream_bytes / ideal_bytes - 1,
        "meets_bars": {
            "speed": slower >= TOKENS_PER_S_BAR,
            "symmetry": abs(decode_s / encode_s - 1) <= ASYMMETRY_BAR,
            "coded_against_measured": -0.0001 <= excess <= EXCESS_BAR,
        },
    }


def step_parts(artifact_path: Path, config: CodecConfig) -> dict[str, float]:
    """Return the median milliseconds of each part of one coding step, inside one full window."""
    artifact = load_artifact(artifact_path)
    model, window = artifact.model, int(artifact.predict["window"])
    shape = (config.lanes, STEPS)
    known = np.random.default_rng(0).integers(0, artifact.tokenizer.vocab_size, shape)
    encoder, lanes_B = Encoder(list(known.astype(np.uint16))), np.arange(config.lanes)
    cache = model.new_cache(config.lanes, window)
    times: dict[str, list[float]] = {}
    with coding_arithmetic(config.threads), torch.inference_mode():
        for tokens_B in known.T:
            if cache.length == window:
                cache.reset()
            stamps = [now_s()]
            hidden_BTD = model.hidden(torch.from_numpy(tokens_B.copy())[:, None], cache)
            stamps.append(now_s())
            logits_BV = model.logits(hidden_BTD[:, 0])
            stamps.append(now_s())
            log_probs_BV = logits_BV.log_softmax(-1)
            stamps.append(now_s())
            freqs = to_freqs(log_probs_BV)
            stamps.append(now_s())
            encoder.code(freqs, lanes_B)
            stamps.append(now_s())
            names = ("hidden", "logits", "softmax", "weights", "coder")
            for name, (begin, end) in zip(names, pairwise(stamps), strict=True):
                times.setdefault(name, []).append(1e3 * (end - begin))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
