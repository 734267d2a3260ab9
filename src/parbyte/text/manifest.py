"""What a prepared data folder holds: counts and hashes of each split, and where they came from.

`manifest.json` is written last, so a folder that has one is whole.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from parbyte.base.errors import DataError
from parbyte.base.files import read_json, write_json

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.bin"
HELDOUT_FILE = "heldout.txt"
SPLITS = ("train", "dev", "heldout")

_FORMAT = 1
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split: its size, the hash of its text, and the hash of each shard."""

    documents: int = 0
    tokens: int = 0
    """Ids in the shards, one BOS per document included."""
    bytes: int = 0
    """Bytes of text; 0 where a linked shard's text was never decoded (contest training shards)."""
    sha256_text: str = ""
    """SHA-256 of the documents' bytes joined; empty where the text was never decoded."""
    shards: dict[str, str]
    """Shard file name -> SHA-256 of the file."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A prepared data folder; `train`, `dev` and `heldout` are always there, `dev` may be empty."""

    corpus: str
    tokenizer_kind: str
    tokenizer_sha256: str
    vocab_size: int
    bos_id: int
    splits: dict[str, SplitInfo]
    dev_in_training: bool = False
    """True if `train` repeats the development documents, so that their figures are optimistic."""
    empty_documents: int = 0
    """Documents without a byte, which were skipped."""
    duplicate_documents: int = 0
    """Held-out documents that also stand, byte for byte, in `train` or `dev`."""
    duplicate_bytes: int = 0
    sources: dict[str, str]
    """Shard file name -> the file elsewhere that it links to (contest shards)."""
    notes: list[str]
    """What a reader of a score on this data should know."""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all."""
    write_json(folder / MANIFEST_FILE, {"format": _FORMAT, **asdict(manifest)})


def load_manifest(folder: Path) -> Manifest:
    """Read a prepared folder's manifest; DataError if there is none or it is of another format."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(f"'{folder}' holds no prepared data ({MANIFEST_FILE} is missing)")
    table = read_json(path)
    if not isinstance(table, dict) or table.pop("format", None) != _FORMAT:
        raise DataError(f"'{path}' is of another format; prepare the data again")
    splits = table.get("splits")
    if not isinstance(splits, dict) or set(splits) != set(SPLITS):
        raise DataError(f"'{path}' is damaged at 'splits'; prepare the data again")
    table["splits"] = {name: _build(SplitInfo, info, path) for name, info in splits.items()}
    return _build(Manifest, table, path)


def _build(cls: type[T], table: Any, path: Path) -> T:
    try:
        value = cls(**table)
    except TypeError:
        raise DataError(f"'{path}' is damaged; prepare the data again") from None
    for name, hint in get_type_hints(cls).items():
        if not isinstance(getattr(value, name), get_origin(hint) or hint):
            raise DataError(f"'{path}' is damaged at '{name}'; prepare the data again")
    return value
