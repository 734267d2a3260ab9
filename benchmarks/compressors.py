"""Compare archives with general-purpose compressors: bits per byte, and bytes/s in both directions.

    python benchmarks/compressors.py runs/demo
    python benchmarks/compressors.py runs/demo --text web.jsonl.zst
    python benchmarks/compressors.py runs/wiki --name wiki        a run on another corpus
    python benchmarks/compressors.py --page                       docs/compressors.md from results

The text is the run's held-out text, whose bitstream the run has proven, or a FILE's documents
joined (.txt, .jsonl, .zst), which is coded and decoded here. Each
compressor is run alone and once more with the run's training text in hand: zstd takes it as a
prefix; what has no such option is given both texts in one stream, and what the training text alone
makes is subtracted ("joined"): the price, if the receiver has the first part.
Every result is decompressed and compared. FILE's archive is made as `parbyte compress` makes it.
The compressors take one core each, parbyte as many jobs as asked for; speeds mean little where the
load average, which is stored with them, says that others were at work.
"""

import argparse
import bz2
import io
import json
import lzma
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import brotli
import pyppmd
import zstandard

from parbyte.base.clock import Stopwatch
from parbyte.base.files import read_json, sha256_bytes, write_bytes, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_machine, describe_versions, num_cores
from parbyte.codec.config import CodecConfig
from parbyte.codec.restore import compress_path, restore
from parbyte.text.config import TextConfig
from parbyte.text.prepare import load_run_tokenizer, split_documents
from parbyte.text.sources import open_corpus

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "compressors.md"
PREAMBLE = """\
# parbyte and general-purpose compressors

Made by `python benchmarks/compressors.py`; every result is restored and compared. What the
receiver knows beforehand: *alone*, nothing but the program; *prefix* and *joined*, the training
text; *model*, parbyte's artifact, whose bytes are in the table and not in the bpb. Each compressor
works on one core, parbyte on as many jobs as it says."""
MAX_TRAINING_BYTES = 8 << 20
FRAME_BYTES = 1 << 20
PPMD_ORDER, PPMD_MEMORY = 16, 256 << 20
ALONE, PREFIX, JOINED, MODEL = "alone", "prefix", "joined", "model"

Pack = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One compressor's result."""

    name: str
    knows: str
    """What of the training text the receiver has: nothing (alone), all of it, or the model."""
    shared_bytes: int
    compressed_bytes: int
    bpb: float
    compress_bytes_per_s: float | None
    decompress_bytes_per_s: float | None
    """None where only the difference of two sizes is known."""


def main() -> None:
    """Run all, print a table, store the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"))
    parser.add_argument("--text", type=Path, help="another text than the run's held-out one")
    parser.add_argument("--jobs", type=int, default=num_cores())
    parser.add_argument("--limit-bytes", type=int, default=0, help="of the text; 0: all of it")
    parser.add_argument("--name", help="of the text in the table; default: its file's, held-out")
    parser.add_argument("--page", action="store_true", help="only write docs/compressors.md")
    given = parser.parse_args()
    if not given.page:
        compare(given)
    write_bytes(PAGE, page().encode())


def compare(given: argparse.Namespace) -> None:
    """Run all over one text and store the result under the text's name."""
    text = read_text(given.run, given.text)[: given.limit_bytes or None]
    training = training_text(given.run)
    mine = ours(given.run / "model.parbyte", text, given.jobs) if given.text else proven(given.run)
    lines = [mine, *others(text, training)]
    name = given.name or (given.text.name.split(".")[0] if given.text else "held-out")
    figures = {
        "text": name,
        "run": given.run.name,
        "text_bytes": len(text),
        "text_sha256": sha256_bytes(text),
        "training_bytes": len(training),
        "jobs": given.jobs if given.text else 1,
        "load_average": os.getloadavg()[0],
        "lines": [asdict(line) for line in lines],
        "machine": describe_machine(),
        "versions": {**describe_versions(), "pyppmd": pyppmd.__version__},
    }
    print(table(lines))
    write_json(RESULTS / f"compressors-{name}.json", figures)


def read_text(run: Path, path: Path | None) -> bytes:
    """Return the held-out text of a run, or another text's documents, joined."""
    if path is None:
        return (run / "data" / "heldout.txt").read_bytes()
    config = TextConfig(corpus=str(path), documents="file")
    return b"\n".join(open_corpus(config).documents())


def training_text(run: Path) -> bytes:
    """Return the run's training text, at most its first 8 MiB."""
    tokenizer = load_run_tokenizer(run / "data")
    found = bytearray()
    for ids in split_documents(run / "data", "train", tokenizer):
        found += tokenizer.decode(ids)
        if len(found) >= MAX_TRAINING_BYTES:
            break
    return bytes(found[:MAX_TRAINING_BYTES])


def proven(run: Path) -> Line:
    """Return what the run coded of its held-out text, and a fresh process decoded."""
    card = read_json(run / "scorecard.json")
    assert card["certified"], f"{run} is not certified"
    seconds = card["stage_seconds"]
    return Line(
        name="parbyte",
        knows=MODEL,
        shared_bytes=card["artifact_bytes"],
        compressed_bytes=card["bitstream_bytes"],
        bpb=card["coded_bpb"],
        compress_bytes_per_s=card["text_bytes"] / seconds["compress"],
        decompress_bytes_per_s=card["text_bytes"] / seconds["prove"],
    )


def ours(model: Path, text: bytes, jobs: int) -> Line:
    """Compress and restore with the run's model."""
    packed, back, console = io.BytesIO(), io.BytesIO(), Console()
    config = CodecConfig(frame_bytes=FRAME_BYTES)
    warm_up(model, config)
    done, _ = compress_path(model, io.BytesIO(text), packed, config, console, jobs)
    packed.seek(0)
    undone, _ = restore(model, packed, back, console, jobs=jobs)
    assert back.getvalue() == text, "parbyte does not restore its input"
    return Line(
        name="parbyte",
        knows=MODEL,
        shared_bytes=model.stat().st_size,
        compressed_bytes=done.bitstream_bytes,
        bpb=8 * done.bitstream_bytes / len(text),
        compress_bytes_per_s=len(text) / done.seconds,
        decompress_bytes_per_s=len(text) / undone.seconds,
    )


def warm_up(model: Path, config: CodecConfig) -> None:
    """Let the kernels be compiled or loaded before the clock runs."""
    packed = io.BytesIO()
    compress_path(model, io.BytesIO(b"In the beginning. " * 9), packed, config, Console(quiet=True))


def others(text: bytes, training: bytes) -> list[Line]:
    """Run every compressor alone and with the training text."""
    ways: dict[str, tuple[Pack, Pack]] = {
        "xz -9e": (xz, lzma.decompress),
        "bzip2 -9": (lambda data: bz2.compress(data, 9), bz2.decompress),
        "brotli -11": (lambda data: brotli.compress(data, quality=11, lgwin=24), brotli.decompress),
        f"PPMd, order {PPMD_ORDER}": (ppmd, unppmd),
        "zstd -22 --ultra --long": zstd(b""),
    }
    lines = [run(name, ALONE, 0, *way, text) for name, way in ways.items()]
    lines.append(run("zstd -22 --ultra --long", PREFIX, len(training), *zstd(training), text))
    for name in list(ways)[:4]:
        lines.append(joined(name, ways[name][0], text, training))
    return lines


def xz(data: bytes) -> bytes:
    """Compress with xz at its highest level."""
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def zstd(prefix: bytes) -> tuple[Pack, Pack]:
    """Return zstd at its highest level, a window of 128 MiB, behind a prefix if there is one."""
    parameters = zstandard.ZstdCompressionParameters.from_level(22, window_log=27, enable_ldm=True)
    known = (
        zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if prefix
        else None
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=known)
    decompressor = zstandard.ZstdDecompressor(dict_data=known, max_window_size=1 << 27)
    return compressor.compress, decompressor.decompress


def ppmd(data: bytes) -> bytes:
    """Compress as 7-Zip's PPMd (variant H) does, the length in front."""
    encoder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return len(data).to_bytes(8, "little") + encoder.encode(data) + encoder.flush()


def unppmd(data: bytes) -> bytes:
    """Undo `ppmd`."""
    length, decoder = (
        int.from_bytes(data[:8], "little"),
        pyppmd.Ppmd7Decoder(PPMD_ORDER, PPMD_MEMORY),
    )
    text = decoder.decode(data[8:], length)
    while len(text) < length:
        text += decoder.decode(b"\0", length - len(text))
    return text


def run(name: str, knows: str, shared: int, pack: Pack, unpack: Pack, text: bytes) -> Line:
    """Time one compressor in both directions."""
    watch = Stopwatch()
    packed = pack(text)
    pack_s, watch = watch.elapsed_s(), Stopwatch()
    assert unpack(packed) == text, f"{name} does not restore its input"
    return Line(
        name=name,
        knows=knows,
        shared_bytes=shared,
        compressed_bytes=len(packed),
        bpb=8 * len(packed) / len(text),
        compress_bytes_per_s=len(text) / pack_s,
        decompress_bytes_per_s=len(text) / watch.elapsed_s(),
    )


def joined(name: str, pack: Pack, text: bytes, training: bytes) -> Line:
    """Return what the text adds to a stream that holds the training text already."""
    added = len(pack(training + text)) - len(pack(training))
    return Line(
        name=name,
        knows=JOINED,
        shared_bytes=len(training),
        compressed_bytes=added,
        bpb=8 * added / len(text),
        compress_bytes_per_s=None,
        decompress_bytes_per_s=None,
    )


def page() -> str:
    """Return the page of all stored results."""
    parts = [PREAMBLE]
    for path in sorted(RESULTS.glob("compressors-*.json")):
        parts += section(json.loads(path.read_text()))
    return "\n\n".join(parts) + "\n"


def section(figures: dict[str, Any]) -> list[str]:
    """Return one text's heading, conditions and table."""
    lines = [Line(**line) for line in figures["lines"]]
    machine = figures["machine"]
    told = (
        f"{figures['text_bytes']:,} bytes of text, {figures['training_bytes']:,} of training text, "
        f"run `{figures['run']}`, {figures['jobs']} jobs, {machine['cores']} cores of "
        f"{machine['cpu']}, load average {figures['load_average']:.1f}."
    )
    return [f"## {figures['text']}", told, table(lines)]


def table(lines: list[Line]) -> str:
    """Return the lines as a table in Markdown, the shortest first."""
    rows = ["| compressor | knows | bpb | bytes | known beforehand | compress | decompress |"]
    rows.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for line in sorted(lines, key=lambda line: line.bpb):
        cells: list[Any] = [line.name, line.knows, f"{line.bpb:.4f}", f"{line.compressed_bytes:,}"]
        cells.append(f"{line.shared_bytes:,}")
        cells += [rate(line.compress_bytes_per_s), rate(line.decompress_bytes_per_s)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def rate(bytes_per_s: float | None) -> str:
    """Return a speed for the table."""
    return "" if bytes_per_s is None else f"{bytes_per_s / 1e3:,.0f} kB/s"


if __name__ == "__main__":
    main()
