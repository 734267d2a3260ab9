"""How fast and in how much memory a corpus becomes shards.

    python benchmarks/prepare.py [--corpus PATH] [--tokenizer words] [--json FILE]

The clock runs over everything: reading, training the tokenizer, encoding, hashing, writing.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import ParbyteError
from parbyte.base.files import write_json
from parbyte.base.log import console_for
from parbyte.base.machine import describe_machine, describe_versions, process_peak_bytes
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare

RESULT = Path(__file__).parent / "results" / "prepare.json"


def measure(config: TextConfig, folder: Path) -> dict[str, object]:
    """Prepare a corpus once and return its figures; peak_rss_bytes is the whole process's."""
    watch = Stopwatch()
    manifest = prepare(config, folder, console_for(quiet=False))
    seconds = watch.elapsed_s()
    num_tokens = sum(info.tokens for info in manifest.splits.values())
    num_bytes = sum(info.bytes for info in manifest.splits.values())
    return {
        "corpus": Path(config.corpus).name,
        "tokenizer": config.tokenizer,
        "vocab_size": manifest.vocab_size,
        "documents": sum(info.documents for info in manifest.splits.values()),
        "bytes": num_bytes,
        "tokens": num_tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(num_tokens / seconds),
        "mb_per_second": round(num_bytes / seconds / 1e6, 2),
        "peak_rss_bytes": process_peak_bytes(),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }


def main() -> int:
    """Parse the command line, print the figures, write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", default="kjv")
    parser.add_argument("--documents", default="auto", choices=["auto", "file", "paragraphs"])
    parser.add_argument("--tokenizer", default="words")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    config = TextConfig(
        corpus=options.corpus,
        documents=options.documents,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(config, Path(folder))
    except ParbyteError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, value in figures.items():
        if isinstance(value, int | float):
            print(f"{name:18} {value:,}")
    write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
