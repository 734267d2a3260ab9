"""Compress a long stream from standard input with a toy model; the peak memory stays under 1 GiB.

    python benchmarks/memory.py [--megabytes 400] [--model FILE]

The stream is a few megabytes of the built-in text, again and again with a line's number between, so
that no frame equals another; the model, unless one is given, is a random little one over bytes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import IO

import torch

from parbyte.base.files import write_json
from parbyte.base.machine import describe_machine, describe_versions, num_cores
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.builtin import kjv_chapters
from parbyte.text.byte_tokenizer import ByteTokenizer

RESULT = Path(__file__).parent / "results" / "memory.json"
COMMAND = """
import sys
from parbyte.base.machine import process_peak_bytes
from parbyte.cli import main
status = main(sys.argv[1:])
print(process_peak_bytes(), file=sys.stderr)
sys.exit(status)
"""
BAR_BYTES = 1 << 30
FRAME_BYTES = 8 << 20


def main() -> None:
    """Feed the command and read its peak memory; exit 1 above the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parbyte-memory-") as name:
        model = given.model or toy_model(Path(name) / "model.parbyte")
        out = Path(name) / "out.pby"
        peak = compress_stream(model, out, given.megabytes * 1_000_000)
        figures = {
            "megabytes": given.megabytes,
            "peak_bytes": peak,
            "archive_bytes": out.stat().st_size,
            "frame_bytes": FRAME_BYTES,
            "jobs": num_cores(),
            "meets_bar": peak < BAR_BYTES,
            "machine": describe_machine(),
            "versions": describe_versions(),
        }
    print(json.dumps(figures, indent=2))
    write_json(given.json, figures)
    if not figures["meets_bar"]:
        sys.exit(1)


def compress_stream(model: Path, out: Path, num_bytes: int) -> int:
    """Compress so many bytes from a pipe; return the command's peak memory in bytes."""
    words = [sys.executable, "-c", COMMAND, "compress", str(model), "-", "-o", str(out)]
    words += ["--quiet", "--frame-bytes", str(FRAME_BYTES)]
    command = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdin is not None
    feed(command.stdin, num_bytes)
    _, said = command.communicate()
    if command.returncode:
        sys.exit(f"the command failed: {said.decode().strip()}")
    return int(said.split()[-1])


def feed(stream: IO[bytes], num_bytes: int) -> None:
    """Write so many bytes of text."""
    for number, chapter in enumerate(cycle(list(kjv_chapters()))):
        block = b"%d\n%s" % (number, chapter)
        stream.write(block[:num_bytes])
        num_bytes -= len(block)
        if num_bytes <= 0:
            return


def toy_model(path: Path) -> Path:
    """Pack a random little model over bytes, of the portable engine."""
    config = ModelConfig(
        vocab_size=257,
        bos_id=256,
        num_layers=1,
        model_dim=16,
        num_heads=2,
        num_kv_heads=2,
        mlp_dim=24,
        rope_dims=4,
    )
    settings = {"window": 64, "stride": 32, "engine": "portable"}
    weights: dict[str, torch.Tensor] = dict(GPT(config, seed=0).state_dict())
    pack = PackConfig(fit=False)
    path.write_bytes(
        build_artifact(
            weights, config, ByteTokenizer(), settings, QuantConfig(), pack, 1_000_000, {}
        )
    )
    return path


if __name__ == "__main__":
    main()
