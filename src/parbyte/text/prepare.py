"""A corpus becomes a folder of token shards: split, tokenizer, shards, manifest.

Three streaming passes: count bytes and place the cuts; train the tokenizer on the training
documents alone; encode everything. Flows out: `{train,dev,heldout}_%06d.bin`, `tokenizer.bin`,
`heldout.txt` and, last of all, `manifest.json`; a folder without a manifest is unfinished.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError
from parbyte.base.files import resource_error, sha256_bytes, write_bytes
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.contest import find_contest_shards, prepare_contest
from parbyte.text.encode import encode_corpus
from parbyte.text.manifest import (
    HELDOUT_FILE,
    MANIFEST_FILE,
    SPLITS,
    TOKENIZER_FILE,
    Manifest,
    load_manifest,
    save_manifest,
)
from parbyte.text.shards import cut_documents, open_shards
from parbyte.text.sources import open_corpus
from parbyte.text.splits import split_corpus
from parbyte.text.tokenizer import Tokenizer, load_tokenizer
from parbyte.text.tokenizer_training import train_tokenizer


def prepare(config: TextConfig, folder: Path, console: Console) -> Manifest:
    """Turn the configured corpus into a data folder and return its manifest.

    What an earlier call left in `folder` is replaced; on any failure nothing of it stays.
    Raises DataError for a corpus that cannot be split or encoded, ResourceError for the disk.
    """
    shards = find_contest_shards(config)
    with _whole_or_absent(folder):
        if shards is not None:
            manifest = prepare_contest(config, shards, folder, console)
        else:
            manifest = _prepare_text(config, folder, console)
        save_manifest(folder, manifest)
    for name, split in manifest.splits.items():
        console.say(
            f"{name}: {split.documents:,} documents, {split.bytes:,} bytes, {split.tokens:,} tokens"
        )
    for note in manifest.notes:
        console.say(f"note: {note}")
    return manifest


def load_run_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a prepared folder; DataError if it is not the manifest's."""
    manifest = load_manifest(folder)
    path = folder / TOKENIZER_FILE
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; prepare the data again") from None
    if sha256_bytes(blob) != manifest.tokenizer_sha256:
        raise DataError(f"'{path}' is not the manifest's tokenizer; prepare the data again")
    return load_tokenizer(manifest.tokenizer_kind, blob)


def split_documents(folder: Path, split: str, tokenizer: Tokenizer) -> Iterator[NDArray[np.uint16]]:
    """Yield the ids of each document of a split, uint16[num_tokens], without its BOS."""
    return cut_documents(open_shards(folder, split), tokenizer.bos_id)


def _prepare_text(config: TextConfig, folder: Path, console: Console) -> Manifest:
    corpus = open_corpus(config)
    console.say(f"reading {corpus.describe()}")
    text = split_corpus(corpus, config)
    documents = text.training_documents(with_dev=config.dev_in_training)
    tokenizer = train_tokenizer(config, documents, console)
    blob = tokenizer.to_blob()
    write_bytes(folder / TOKENIZER_FILE, blob)
    encoded = encode_corpus(config, text, tokenizer, folder, console)
    return Manifest(
        corpus=config.corpus,
        tokenizer_kind=tokenizer.kind,
        tokenizer_sha256=sha256_bytes(blob),
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        splits=encoded.splits,
        dev_in_training=config.dev_in_training,
        empty_documents=text.num_empty,
        duplicate_documents=encoded.duplicate_documents,
        duplicate_bytes=encoded.duplicate_bytes,
        sources={},
        notes=[],
    )


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[None]:
    _clear(folder)
    try:
        yield
    except BaseException:
        _clear(folder)
        raise


def _clear(folder: Path) -> None:
    # The manifest goes first: at no moment may it vouch for files that are gone.
    paths = [folder / name for name in (MANIFEST_FILE, TOKENIZER_FILE, HELDOUT_FILE)]
    for split in SPLITS:
        paths += sorted(folder.glob(f"{split}_[0-9][0-9][0-9][0-9][0-9][0-9].bin"))
    # What a killed process was writing.
    paths += sorted(folder.glob(".*.part"))
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise resource_error(error, path) from None
