"""Mutate artifacts, bitstreams, archives, tokenizer blobs, shards and recipes until time is up.

    python tests/fuzz/harness.py --minutes 5 [--seed 0] [--out FOLDER]

Every mutant must load or raise a ParbyteError of one line, within seconds and 64 MiB of memory.
What does not is a finding: its bytes are kept in FOLDER, and the exit code is 1.
"""

import argparse
import hashlib
import random
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from parbyte.base.errors import ParbyteError  # noqa: E402
from parbyte.base.log import Console  # noqa: E402

QUIET = Console(quiet=True)
MAX_GROWTH_BYTES = 64 << 20
MAX_SECONDS = 30
NASTY = [b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"\x80" * 9 + b"\x01", b"nan", b"1e999"]
NASTY += [b"[" * 3000, b"-1", b"99999999999999999999", b"../", b'"', b"\n", b"\x28\xb5\x2f\xfd"]


@dataclass(frozen=True)
class Subject:
    """A kind of file: sound examples, how it is read, and how its checksums are made to fit."""

    name: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    seal: Callable[[bytes], bytes] = bytes


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return data with one to four random changes."""
    mutant = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(mutant) + 1)
        how = rng.randrange(7)
        if how == 0 and place < len(mutant):
            mutant[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            del mutant[place:]
        elif how == 2:
            mutant[place:place] = rng.randbytes(rng.randint(1, 9))
        elif how == 3:
            piece = rng.choice(NASTY)
            mutant[place : place + len(piece)] = piece
        elif how == 4:
            stop = place + rng.randint(1, 64)
            mutant[place:place] = mutant[place:stop]
        elif how == 5:
            del mutant[place : place + rng.randint(1, 32)]
        else:
            other = rng.choice(others)
            mutant[place:] = other[rng.randrange(len(other) + 1) :]
    return bytes(mutant)


def seal_artifact(data: bytes) -> bytes:
    """Put the digest in place that fits."""
    return data[:8] + hashlib.sha256(data[:8] + data[40:]).digest() + data[40:]


def seal_archive(data: bytes) -> bytes:
    """Make the first record's checksum fit, if its numbers can still be read."""
    from parbyte.codec.record import FOOTER_BYTES, MAGIC, MARKER

    start = len(MAGIC)
    second = data.find(MARKER, start + 1)
    second = len(data) - FOOTER_BYTES if second < 0 else second
    for stop in range(start + 14, min(second, start + 200)):
        body = data[start:stop]
        if zlib.crc32(body).to_bytes(4, "little") == data[stop : stop + 4]:
            return data
    stop = min(len(data), start + 20)
    return data[:stop] + zlib.crc32(data[start:stop]).to_bytes(4, "little") + data[stop + 4 :]


def subjects(folder: Path) -> list[Subject]:
    """Make the sound files; everything is small and from code."""
    seeds = _toy_artifacts(folder)
    artifact = _toy_artifact(folder)
    text = b"In the beginning God created the heaven and the earth.\n" * 9
    return [
        Subject("artifact", seeds, _read_artifact, seal_artifact),
        *_compressed(folder, artifact, text),
        *_tokenizers(text),
        *_data(folder),
    ]


def _toy_artifacts(folder: Path) -> list[bytes]:
    """One artifact for each grid, and for all that may stand beside codes."""
    bits = dict.fromkeys(("bits_embed", "bits_attn", "bits_mlp"), 4)
    bits |= dict.fromkeys(("bits_table", "bits_proj"), 4)
    ways: list[dict[str, Any]] = [
        {},
        {"group": 8, "lqer_rank": 2, "sparse_share": 0.02},
        {"grid": "e8"},
        {"grid": "codebook", "clip": "max", **bits},
    ]
    return [_toy_artifact(folder, **way).read_bytes() for way in ways]


def _toy_artifact(folder: Path, **quant: Any) -> Path:
    from parbyte.model.config import ModelConfig
    from parbyte.model.gpt import GPT
    from parbyte.pack.artifact import build_artifact
    from parbyte.pack.config import PackConfig
    from parbyte.quant.config import QuantConfig
    from parbyte.text.byte_tokenizer import ByteTokenizer

    config = ModelConfig(
        vocab_size=257,
        bos_id=256,
        model_dim=16,
        num_heads=2,
        num_kv_heads=2,
        mlp_dim=24,
        rope_dims=4,
    )
    weights = dict(GPT(config, seed=0).state_dict())
    settings = {"window": 16, "stride": 8, "engine": "torch"}
    pack = PackConfig(fit=False)
    data = build_artifact(
        weights, config, ByteTokenizer(), settings, QuantConfig(**quant), pack, 1_000_000, {}
    )
    path = folder / "model.parbyte"
    path.write_bytes(data)
    return path


def _compressed(folder: Path, artifact: Path, text: bytes) -> Iterator[Subject]:
    from parbyte.codec.compress import compress_file
    from parbyte.codec.config import CodecConfig
    from parbyte.codec.restore import compress_path, examine, list_archive, restore

    config = CodecConfig(lanes=2, frame_bytes=100, threads=1)
    tree, source = folder / "tree", folder / "text"
    tree.mkdir()
    source.write_bytes(text)
    for number in range(4):
        (tree / f"file{number}").write_bytes(text[number : 70 * number])
    compress_file(artifact, source, folder / "plain.pby", config, QUIET)
    for path in (source, tree):
        compress_path(artifact, path, path.with_suffix(".pby"), config, QUIET)
    out = folder / "out"

    def read(path: Path) -> None:
        for reading in (
            lambda: list_archive(path),
            lambda: examine(artifact, path, QUIET),
            lambda: restore(artifact, path, out / "all", QUIET),
            lambda: restore(artifact, path, out / "one", QUIET, document=1),
        ):
            try:
                reading()
            except ParbyteError as error:
                check_line(error)
        strays = {entry.name for entry in out.iterdir()} - {"all", "one"} if out.exists() else set()
        if strays:
            raise AssertionError(f"written outside of the folder: {strays}")
        _remove(out)

    yield Subject("bitstream", [(folder / "plain.pby").read_bytes()], read)
    seeds = [path.with_suffix(".pby").read_bytes() for path in (source, tree)]
    yield Subject("archive", seeds, read, seal_archive)


def _tokenizers(text: bytes) -> Iterator[Subject]:
    from parbyte.text.config import TextConfig
    from parbyte.text.tokenizer import load_tokenizer
    from parbyte.text.tokenizer_training import train_tokenizer

    for kind in ("words", "sentencepiece"):
        config = TextConfig(tokenizer=kind, vocab_size=300)
        blob = train_tokenizer(config, [text], QUIET).to_blob()

        def read(path: Path, kind: str = kind) -> None:
            tokenizer = load_tokenizer(kind, path.read_bytes())
            tokenizer.decode(tokenizer.encode(b"In the beginning"))

        yield Subject(f"tokenizer {kind}", [blob], read)


def _data(folder: Path) -> Iterator[Subject]:
    import numpy as np

    from parbyte.recipe import load_recipe
    from parbyte.text.shards import ShardWriter, map_shard, read_count

    with ShardWriter(folder / "shards", "train", 100) as writer:
        writer.append(np.arange(90, dtype=np.uint16))

    def read_shard(path: Path) -> None:
        read_count(path)
        map_shard(path).sum()

    shard = next((folder / "shards").glob("*.bin")).read_bytes()
    yield Subject("shard", [shard], read_shard)
    recipes = sorted((ROOT / "src" / "parbyte" / "recipes").glob("*.toml"))
    yield Subject("recipe", [path.read_bytes() for path in recipes], load_recipe)


def _read_artifact(path: Path) -> None:
    from parbyte.pack.artifact import inspect_artifact, load_artifact

    load_artifact(path)
    inspect_artifact(path)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def check_line(error: ParbyteError) -> None:
    """Refuse an error that is no single line."""
    if "\n" in str(error) or not str(error):
        raise AssertionError(f"an error of several lines: {error}")


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {MAX_SECONDS} s")


@contextmanager
def watched() -> Iterator[None]:
    """Raise for what takes too long or grows too much (where Linux lets the peak be reset)."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
    growth = _memory("VmHWM") - before
    if growth > MAX_GROWTH_BYTES:
        raise MemoryError(f"{growth >> 20} MiB more memory than before")


def try_one(subject: Subject, data: bytes, path: Path) -> str | None:
    """Read one mutant; return what is wrong with how that ended, or None."""
    path.write_bytes(data)
    try:
        with watched():
            try:
                subject.read(path)
            except ParbyteError as error:
                check_line(error)
    except Exception:
        return traceback.format_exc(limit=-6)
    return None


def fuzz(seconds: float, seed: int, out: Path) -> int:
    """Fuzz all subjects in turn; return the number of findings."""
    rng, findings, counts = random.Random(seed), 0, dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="parbyte-fuzz-") as name:
        folder = Path(name)
        all_subjects = subjects(folder)
        pool = [data for subject in all_subjects for data in subject.seeds]
        for subject in all_subjects:
            for data in subject.seeds:
                subject.read(_written(folder / "mutant.toml", data))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            subject = all_subjects[sum(counts.values()) % len(all_subjects)]
            data = mutate(rng.choice(subject.seeds), rng, pool)
            data = subject.seal(data) if rng.random() < 0.7 else data
            counts[subject.name] = counts.get(subject.name, 0) + 1
            if problem := try_one(subject, data, folder / "mutant.toml"):
                findings += 1
                out.mkdir(parents=True, exist_ok=True)
                place = out / f"{subject.name.replace(' ', '-')}-{findings}"
                place.write_bytes(data)
                print(f"{place}:\n{problem}", file=sys.stderr)
    for name, count in counts.items():
        print(f"{name} {count:,} mutants")
    print(f"findings {findings}")
    return findings


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="fuzz every reader of parbyte")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fuzz")
    given = parser.parse_args()
    return 1 if fuzz(60 * given.minutes, given.seed, given.out) else 0


if __name__ == "__main__":
    sys.exit(main())
