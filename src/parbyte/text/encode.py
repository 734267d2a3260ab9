"""The encoding pass: labelled documents become the shards of their splits, and `heldout.txt`.

Every document is BOS and then its ids; there is no end mark. Memory holds one document at a time.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import DataError
from parbyte.base.files import atomic_file, sha256_file
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.duplicates import DuplicateCount
from parbyte.text.manifest import HELDOUT_FILE, SPLITS, SplitInfo
from parbyte.text.shards import ShardWriter
from parbyte.text.splits import SplitCorpus
from parbyte.text.tokenizer import Tokenizer

_BYTES_PER_UPDATE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoding pass wrote and counted."""

    splits: dict[str, SplitInfo]
    duplicate_documents: int
    duplicate_bytes: int


@dataclass
class SplitRecord:
    """One split while it is being written."""

    writer: ShardWriter
    num_documents: int = 0
    num_bytes: int = 0
    text_hash: Any = field(default_factory=hashlib.sha256)

    def add(self, document: bytes, stream: NDArray[np.uint16]) -> None:
        """Write one document; `stream` is its BOS and its ids."""
        self.writer.append(stream)
        self.text_hash.update(document)
        self.num_documents += 1
        self.num_bytes += len(document)

    def info(self) -> SplitInfo:
        """Return the counts and hashes of what was written; the writer must be closed."""
        return SplitInfo(
            documents=self.num_documents,
            tokens=self.writer.num_tokens,
            bytes=self.num_bytes,
            sha256_text=self.text_hash.hexdigest(),
            shards={path.name: sha256_file(path) for path in self.writer.paths},
        )


def encode_corpus(
    config: TextConfig, text: SplitCorpus, tokenizer: Tokenizer, folder: Path, console: Console
) -> Encoded:
    """Encode every document into its split's shards, and check that the held-out text is new.

    Raises DataError for a document that the tokenizer refuses, or if most held-out bytes also
    stand in the training text.
    """
    duplicates = DuplicateCount()
    watch = Stopwatch()
    num_bytes = num_tokens = next_shown = 0
    with ExitStack() as stack:
        heldout_file = stack.enter_context(atomic_file(folder / HELDOUT_FILE))
        records = {
            split: SplitRecord(stack.enter_context(ShardWriter(folder, split, config.shard_tokens)))
            for split in SPLITS
        }
        progress = stack.enter_context(console.progress("encoding", text.num_bytes))
        for split, document in text.labelled():
            stream = _encode_document(tokenizer, document, split, records[split].num_documents)
            records[split].add(document, stream)
            if split == "dev" and config.dev_in_training:
                records["train"].add(document, stream)
            if split == "heldout":
                heldout_file.write(document)
            duplicates.add(split, document, len(document))
            num_bytes += len(document)
            num_tokens += len(stream)
            if num_bytes >= next_shown or num_bytes == text.num_bytes:
                progress.update(num_bytes, _rates(num_tokens, num_bytes, watch.elapsed_s()))
                next_shown = num_bytes + _BYTES_PER_UPDATE
    num_duplicates, duplicate_bytes = duplicates.count()
    return Encoded(
        splits={split: record.info() for split, record in records.items()},
        duplicate_documents=num_duplicates,
        duplicate_bytes=duplicate_bytes,
    )


def _encode_document(
    tokenizer: Tokenizer, document: bytes, split: str, index: int
) -> NDArray[np.uint16]:
    try:
        ids = tokenizer.encode(document)
    except DataError as error:
        raise DataError(f"{split} document {index + 1:,}: {error}") from None
    return np.concatenate([np.array([tokenizer.bos_id], np.uint16), ids])


def _rates(num_tokens: int, num_bytes: int, elapsed_s: float) -> dict[str, str]:
    elapsed_s = max(elapsed_s, 1e-9)
    return {
        "tokens/s": f"{num_tokens / elapsed_s:,.0f}",
        "MB/s": f"{num_bytes / elapsed_s / 1e6:.1f}",
    }
