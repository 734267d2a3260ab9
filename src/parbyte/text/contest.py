"""The contest's token shards as a corpus: linked in place, their split checked, nothing copied.

A folder holds `*_train_%06d.bin` and `*_val_%06d.bin` (and perhaps `*_val_bytes_%06d.bin`, which
are byte counts and no tokens). Validation is held out whole; development text is the tail of the
training stream, so the shard in which it starts is the one that is written anew, without it.
Source: github.com/openai/parameter-golf (data/README); leaks and their signs: its issue 2127.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import DataError
from parbyte.base.files import atomic_file, resource_error, sha256_bytes, sha256_file, write_bytes
from parbyte.base.log import Console
from parbyte.text.config import TextConfig
from parbyte.text.duplicates import DuplicateCount
from parbyte.text.encode import SplitRecord
from parbyte.text.manifest import HELDOUT_FILE, TOKENIZER_FILE, Manifest, SplitInfo
from parbyte.text.shards import (
    ShardWriter,
    TokenStream,
    cut_documents,
    map_shard,
    read_count,
    shard_name,
)
from parbyte.text.tokenizer import Tokenizer
from parbyte.text.tokenizer_training import train_tokenizer

VAL_DOCUMENTS = 50_000
VAL_BYTES = 151_080_891
SHARD_TOKENS = 100_000_000
# Scored positions of known validation exports, cut into whole windows of 2,048.
KNOWN_VAL_TARGETS = {
    62_021_632: "sp1024",
    45_508_608: "sp4096",
    45_514_752: "sp4096, a second export",
    40_540_160: "sp8192",
    47_851_520: "sp8192 with case operators",
    9_662_464: "10,000 documents only: such training shards hold the other 40,000",
}

_WINDOW = 2_048
# Exports of the same documents differ by this little, see `KNOWN_VAL_TARGETS`.
_BYTES_TOLERANCE = 1e-4
# The border that starts the development slice is looked for this much further back.
_LONGEST_DOCUMENT = 1_000_000
# Development figures need no more than this, however long the training text is.
_MAX_DEV_TOKENS = 10_000_000
_DOCUMENTS_PER_UPDATE = 10_000


@dataclass(frozen=True, kw_only=True)
class ContestShards:
    """The shard files of a contest folder, in the order of their names."""

    folder: Path
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    val_bytes: tuple[Path, ...]


def find_contest_shards(config: TextConfig) -> ContestShards | None:
    """Return the shards if the corpus is a folder of them, None if it is anything else.

    Raises DataError if only one of training and validation shards is there.
    """
    folder = Path(config.corpus).expanduser()
    if not folder.is_dir():
        return None
    # A glob for `val` also finds the byte counts beside them.
    found = {kind: sorted(folder.glob(f"*_{kind}_*.bin")) for kind in ("train", "val")}
    train, val = (tuple(p for p in paths if "_bytes_" not in p.name) for paths in found.values())
    if not train and not val:
        return None
    if not train or not val:
        missing = "val" if train else "train"
        raise DataError(f"'{folder}' holds no '*_{missing}_*.bin' shards; fetch them too")
    if config.heldout:
        raise DataError(
            f"'{folder}' has validation shards, which are the held-out text: leave 'text.heldout' "
            f"empty"
        )
    return ContestShards(
        folder=folder,
        train=train,
        val=val,
        val_bytes=tuple(p for p in found["val"] if "_bytes_" in p.name),
    )


def prepare_contest(
    config: TextConfig, shards: ContestShards, folder: Path, console: Console
) -> Manifest:
    """Link the shards into `folder`, cut off the development slice, decode the held-out text.

    Raises DataError for what is provably wrong: damaged shards, ids outside the vocabulary, a
    stream that does not start with BOS, validation documents that are also trained on. What is
    only unusual becomes a note in the manifest.
    """
    tokenizer = _load_tokenizer(config, shards, console)
    blob = tokenizer.to_blob()
    write_bytes(folder / TOKENIZER_FILE, blob)
    train = _map_checked(shards.train, tokenizer)
    val = _map_checked(shards.val, tokenizer)
    stream = TokenStream(train)
    dev_at = _place_dev(config, shards.folder, stream, tokenizer)
    kept = train if config.dev_in_training else _cut_at(train, dev_at)
    links = _link(shards.val, val, folder, "heldout") | _link(shards.train, kept, folder, "train")
    duplicates = DuplicateCount()
    train_info = _scan_train(folder, kept, tokenizer, duplicates, console)
    dev_info = _write_dev(folder, stream[dev_at:], tokenizer, duplicates)
    heldout_info = _scan_heldout(folder, val, tokenizer, duplicates)
    num_duplicates, duplicate_bytes = duplicates.count()
    return Manifest(
        corpus=config.corpus,
        tokenizer_kind=tokenizer.kind,
        tokenizer_sha256=sha256_bytes(blob),
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        splits={"train": train_info, "dev": dev_info, "heldout": heldout_info},
        dev_in_training=config.dev_in_training,
        duplicate_documents=num_duplicates,
        duplicate_bytes=duplicate_bytes,
        sources=links,
        notes=find_notes(shards, heldout_info),
    )


def find_notes(shards: ContestShards, heldout: SplitInfo) -> list[str]:
    """Say what a reader of a score on these shards should know: which export, what is unusual."""
    num_targets = (heldout.tokens - 1) // _WINDOW * _WINDOW
    export = KNOWN_VAL_TARGETS.get(num_targets, "an unknown export")
    notes = [f"validation: {num_targets:,} positions in whole windows of {_WINDOW:,}: {export}"]
    if heldout.documents != VAL_DOCUMENTS:
        notes.append(
            f"validation has {heldout.documents:,} documents, the contest's has {VAL_DOCUMENTS:,}: "
            f"scores do not compare"
        )
    elif abs(heldout.bytes - VAL_BYTES) > VAL_BYTES * _BYTES_TOLERANCE:
        notes.append(
            f"validation stands for {heldout.bytes:,} bytes, the contest's for {VAL_BYTES:,}: "
            f"scores do not compare"
        )
    if any(read_count(path) != SHARD_TOKENS for path in shards.train[:-1]):
        notes.append(f"training shards are not of {SHARD_TOKENS:,} tokens each: a private export")
    if shards.val_bytes:
        notes.append(_compare_sidecar(shards, heldout))
    return notes


def _compare_sidecar(shards: ContestShards, heldout: SplitInfo) -> str:
    counts = [map_shard(path) for path in shards.val_bytes]
    if sum(map(len, counts)) != heldout.tokens:
        raise DataError(
            f"'{shards.val_bytes[0]}' and its like count {sum(map(len, counts)):,} tokens, the "
            f"validation shards hold {heldout.tokens:,}; fetch both from one export"
        )
    num_bytes = sum(int(count.sum(dtype=np.int64)) for count in counts)
    return (
        f"the byte counts beside the validation shards sum to {num_bytes:,}, the decoded text "
        f"has {heldout.bytes:,} bytes; figures here are per decoded byte"
    )


def _load_tokenizer(config: TextConfig, shards: ContestShards, console: Console) -> Tokenizer:
    if config.tokenizer not in ("official", "sentencepiece") or not config.tokenizer_file:
        raise DataError(
            f"'{shards.folder}' holds finished tokens: set text.tokenizer = \"official\" and "
            f"text.tokenizer_file to the SentencePiece model that made them"
        )
    return train_tokenizer(config, (), console)


def _map_checked(paths: tuple[Path, ...], tokenizer: Tokenizer) -> list[NDArray[np.uint16]]:
    shards = [map_shard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if len(shard) == 0:
            raise DataError(f"'{path}' holds no tokens; remove it or fetch it again")
        largest = int(shard.max())
        if largest >= tokenizer.vocab_size:
            raise DataError(
                f"'{path}' holds token {largest:,}, the vocabulary ends at "
                f"{tokenizer.vocab_size - 1:,}: 'text.tokenizer_file' is of other shards"
            )
    if int(shards[0][0]) != tokenizer.bos_id:
        raise DataError(
            f"'{paths[0]}' does not start with BOS ({tokenizer.bos_id}): it is not the first of "
            f"its split, or 'text.tokenizer_file' is of other shards"
        )
    return shards


def _place_dev(config: TextConfig, folder: Path, stream: TokenStream, tokenizer: Tokenizer) -> int:
    """Return the position in the training stream where the development slice starts."""
    if config.dev_fraction == 0:
        return len(stream)
    wanted = min(round(config.dev_fraction * len(stream)), _MAX_DEV_TOKENS)
    tail_at = max(len(stream) - 2 * wanted - _LONGEST_DOCUMENT, 0)
    borders = np.flatnonzero(stream[tail_at:] == tokenizer.bos_id) + tail_at
    borders = borders[borders > 0]
    if len(borders) == 0:
        raise DataError(
            f"the training shards in '{folder}' have no border between documents near their end, "
            f"so no development slice can be cut off: set text.dev_fraction = 0"
        )
    first = int(np.searchsorted(borders, len(stream) - wanted))
    return int(borders[min(first, len(borders) - 1)])


def _cut_at(shards: list[NDArray[np.uint16]], position: int) -> list[NDArray[np.uint16]]:
    kept: list[NDArray[np.uint16]] = []
    for shard in shards:
        kept.append(shard[:position])
        position = max(position - len(shard), 0)
    return [shard for shard in kept if len(shard)]


def _link(
    paths: tuple[Path, ...], shards: list[NDArray[np.uint16]], folder: Path, split: str
) -> dict[str, str]:
    """Put each shard into `folder`: as a link where it is used whole, written anew where cut."""
    links: dict[str, str] = {}
    for index, shard in enumerate(shards):
        path, name = paths[index].resolve(), shard_name(split, index)
        if len(shard) < read_count(path):
            with ShardWriter(folder, split, len(shard), first=index) as writer:
                writer.append(shard)
            continue
        try:
            (folder / name).symlink_to(path)
        except OSError as error:
            raise resource_error(error, folder / name) from None
        links[name] = str(path)
    return links


def _scan_train(
    folder: Path,
    shards: list[NDArray[np.uint16]],
    tokenizer: Tokenizer,
    duplicates: DuplicateCount,
    console: Console,
) -> SplitInfo:
    stream = TokenStream(shards)
    num_documents = num_tokens = 0
    with console.progress("checking the split", len(stream)) as progress:
        for ids in cut_documents(stream, tokenizer.bos_id):
            duplicates.add("train", ids.tobytes(), 0)
            num_documents += 1
            num_tokens += 1 + len(ids)
            if num_documents % _DOCUMENTS_PER_UPDATE == 0 or num_tokens == len(stream):
                progress.update(num_tokens, {"documents": f"{num_documents:,}"})
    names = [shard_name("train", index) for index in range(len(shards))]
    return SplitInfo(
        documents=num_documents,
        tokens=len(stream),
        shards={name: sha256_file(folder / name) for name in names},
    )


def _write_dev(
    folder: Path, tail: NDArray[np.uint16], tokenizer: Tokenizer, duplicates: DuplicateCount
) -> SplitInfo:
    with ShardWriter(folder, "dev", SHARD_TOKENS) as writer:
        record = SplitRecord(writer)
        for ids in cut_documents(TokenStream([tail]), tokenizer.bos_id):
            stream = np.concatenate([np.array([tokenizer.bos_id], np.uint16), ids])
            record.add(tokenizer.decode(ids), stream)
            duplicates.add("dev", ids.tobytes(), 0)
    return record.info()


def _scan_heldout(
    folder: Path,
    shards: list[NDArray[np.uint16]],
    tokenizer: Tokenizer,
    duplicates: DuplicateCount,
) -> SplitInfo:
    num_documents = num_bytes = 0
    text_hash = hashlib.sha256()
    with atomic_file(folder / HELDOUT_FILE) as stream:
        for ids in cut_documents(TokenStream(shards), tokenizer.bos_id):
            document = tokenizer.decode(ids)
            stream.write(document)
            text_hash.update(document)
            duplicates.add("heldout", ids.tobytes(), len(document))
            num_documents += 1
            num_bytes += len(document)
    names = [shard_name("heldout", index) for index in range(len(shards))]
    return SplitInfo(
        documents=num_documents,
        tokens=sum(map(len, shards)),
        bytes=num_bytes,
        sha256_text=text_hash.hexdigest(),
        shards={name: sha256_file(folder / name) for name in names},
    )
