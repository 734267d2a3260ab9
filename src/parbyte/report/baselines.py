"""What general-purpose compressors make of the same held-out bytes, in this process, this run.

Flows in: the held-out text, and the training text for the compressors that can be shown it.
Flows out: one `Baseline` per compressor; each result was decompressed and compared.
"""

import bz2
import lzma
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import DataError
from parbyte.base.files import read_json, sha256_bytes, write_json
from parbyte.base.log import Console
from parbyte.base.machine import describe_versions
from parbyte.base.units import coded_bits_per_byte

MAX_TEXT_BYTES = 16 << 20
"""Of a longer held-out text only the beginning is compressed: brotli -11 needs 2 s a MB."""
MAX_TRAINING_BYTES = 32 << 20
"""Of a longer training text only the beginning is shown to zstd."""
_DICTIONARY_BYTES = 112_640
_DICTIONARY_SAMPLE_BYTES = 8 << 20
_FORMAT = 1

Coder = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
"""A compressor and its inverse."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One compressor's result on the held-out text."""

    name: str
    compressed_bytes: int
    text_bytes: int
    """How much of the held-out text it was given."""
    shared_bytes: int
    """Bytes that the receiver must hold beforehand: a dictionary or the training text."""
    seconds: float

    @property
    def bpb(self) -> float:
        """Bits per byte of the compressed text alone; `shared_bytes` do not count."""
        return coded_bits_per_byte(self.compressed_bytes, self.text_bytes)


def load_or_measure(
    path: Path, text: bytes, training: Callable[[], Iterable[bytes]], console: Console
) -> list[Baseline]:
    """Return the baselines that `path` holds for this text; measure and store them if it has none.

    training: yields the training documents, in order; called only if there is something to do.
    """
    versions = describe_versions()
    key: dict[str, Any] = {"format": _FORMAT, "sha256_text": sha256_bytes(text)}
    key |= {name: versions[name] for name in ("python", "zstandard", "brotli")}
    stored = _read_stored(path, key)
    if stored is not None:
        return stored
    results = measure_baselines(text, training(), console)
    write_json(path, {**key, "results": [asdict(result) for result in results]})
    return results


def measure_baselines(text: bytes, training: Iterable[bytes], console: Console) -> list[Baseline]:
    """Compress `text` with xz, bzip2, zstd (alone, with a dictionary, after training) and brotli.

    training: the training documents, in order. An empty text has no baselines.
    """
    text = text[:MAX_TEXT_BYTES]
    if not text:
        return []
    shown = _first_bytes(training, MAX_TRAINING_BYTES)
    dictionary = _train_dictionary(shown)
    coders: list[tuple[str, int, Coder]] = [
        ("xz -9e", 0, _xz()),
        ("bzip2 -9", 0, _bzip2()),
        ("zstd -22", 0, _zstd(b"")),
        ("brotli -11", 0, _brotli()),
    ]
    if dictionary:
        coders.append(("zstd -22, trained dictionary", len(dictionary), _zstd(dictionary)))
    if shown:
        coders.append(("zstd -22, given the training text", len(shown), _zstd(shown)))
    return [_run(name, shared, coder, text, console) for name, shared, coder in coders]


def _run(name: str, shared_bytes: int, coder: Coder, text: bytes, console: Console) -> Baseline:
    compress, decompress = coder
    watch = Stopwatch()
    compressed = compress(text)
    seconds = watch.elapsed_s()
    assert decompress(compressed) == text, f"{name} does not restore its input"
    result = Baseline(
        name=name,
        compressed_bytes=len(compressed),
        text_bytes=len(text),
        shared_bytes=shared_bytes,
        seconds=round(seconds, 3),
    )
    console.say(f"{name}: {result.compressed_bytes:,} bytes, bpb {result.bpb:.4f} (coded)")
    return result


def _xz() -> Coder:
    return lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME), lzma.decompress


def _bzip2() -> Coder:
    return lambda text: bz2.compress(text, 9), bz2.decompress


def _brotli() -> Coder:
    import brotli

    return lambda text: brotli.compress(text, quality=11, lgwin=24), brotli.decompress


def _zstd(shared: bytes) -> Coder:
    """Make zstd at its highest level, knowing a dictionary or earlier text if there is any."""
    import zstandard

    known = zstandard.ZstdCompressionDict(shared) if shared else None
    compressor = zstandard.ZstdCompressor(level=22, dict_data=known)
    return compressor.compress, zstandard.ZstdDecompressor(dict_data=known).decompress


def _train_dictionary(text: bytes) -> bytes:
    """Train a zstd dictionary of the usual size; empty if there is too little text for one."""
    import zstandard

    text = text[:_DICTIONARY_SAMPLE_BYTES]
    # Many short samples: the trainer looks for strings that several of them share.
    samples: Any = [text[at : at + 1024] for at in range(0, len(text), 1024)]
    try:
        return zstandard.train_dictionary(_DICTIONARY_BYTES, samples).as_bytes()
    except zstandard.ZstdError:
        return b""


def _first_bytes(documents: Iterable[bytes], limit: int) -> bytes:
    found = bytearray()
    for document in documents:
        found += document[: limit - len(found)]
        if len(found) >= limit:
            break
    return bytes(found)


def _read_stored(path: Path, key: dict[str, Any]) -> list[Baseline] | None:
    if not path.is_file():
        return None
    try:
        table = read_json(path)
        if {name: table.get(name) for name in key} != key:
            return None
        return [Baseline(**result) for result in table["results"]]
    except (DataError, KeyError, TypeError, AttributeError):
        # A damaged store only costs time: the compressors run again.
        return None
