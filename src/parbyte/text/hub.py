"""Fetch the contest's FineWeb shards and their tokenizer from the Hugging Face hub.

What the repository's manifest lists is fetched file by file, resumed where a download was cut, and
checked: size and SHA-256 as the hub states them, shard headers by us. Files keep the repository's
layout below the target folder. Source: openai/parameter-golf, data/README.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from parbyte.base.errors import DataError, ResourceError
from parbyte.base.files import read_json, sha256_file
from parbyte.base.log import Console
from parbyte.text.shards import read_count

FINEWEB_REPOSITORY = "willdepueoai/parameter-golf"

_REMOTE_ROOT = "datasets"


@dataclass(frozen=True, kw_only=True)
class FinewebFiles:
    """Where a download lies: `shards` is a `text.corpus`, `tokenizer` its `text.tokenizer_file`."""

    shards: Path
    tokenizer: Path


@dataclass(frozen=True)
class _RemoteFile:
    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class _Hub:
    """One dataset repository on one server, mirrored into one folder."""

    repository: str
    endpoint: str | None
    folder: Path

    def list_files(self, paths: list[str]) -> list[_RemoteFile]:
        """Ask for size and hash of each path; DataError if one does not exist."""
        from huggingface_hub import HfApi

        with _network_errors(self.repository):
            found = HfApi(endpoint=self.endpoint).get_paths_info(
                self.repository, paths, repo_type="dataset"
            )
        known: dict[str, Any] = {entry.path: entry for entry in found}
        for path in paths:
            if not hasattr(known.get(path), "size"):
                raise DataError(f"'{self.repository}' on the hub has no file '{path}'")
        return [
            _RemoteFile(path, known[path].size, known[path].lfs.sha256 if known[path].lfs else None)
            for path in paths
        ]

    def fetch(self, path: str, *, again: bool = False) -> Path:
        """Download one file unless it is there already; resumes a download that was cut."""
        from huggingface_hub import hf_hub_download

        with _network_errors(self.repository):
            found = hf_hub_download(
                self.repository,
                path,
                repo_type="dataset",
                local_dir=self.folder,
                endpoint=self.endpoint,
                force_download=again,
            )
        return Path(found)


def download_fineweb(
    variant: str,
    folder: Path,
    num_train_shards: int,
    *,
    endpoint: str | None = None,
    repository: str = FINEWEB_REPOSITORY,
    console: Console | None = None,
) -> FinewebFiles:
    """Fetch the whole validation split, the first training shards and the tokenizer of a variant.

    variant: "sp1024" and the like, as the repository's manifest names them. A file that is there
    and whole is not fetched again; one that is damaged is.
    Raises ResourceError without the package huggingface_hub or the network, DataError for an
    unknown variant, too many shards, or a file that stays damaged.
    """
    console = console or Console(quiet=True)
    _require_package()
    hub = _Hub(repository, endpoint, folder)
    manifest = hub.fetch(f"{_REMOTE_ROOT}/manifest.json")
    shards, tokenizers = _list_paths(read_json(manifest), variant, num_train_shards, repository)
    files = hub.list_files([*tokenizers, *shards])
    total = sum(file.size for file in files)
    console.say(f"{len(files):,} files, {total:,} bytes, from '{repository}' into '{folder}'")
    done = 0
    with console.progress(f"fetching {variant}", total) as progress:
        for file in files:
            local = _fetch_checked(hub, file)
            if local.suffix == ".bin":
                read_count(local)
            done += file.size
            progress.update(done, {"file": local.name})
    return FinewebFiles(
        shards=(folder / shards[0]).parent,
        tokenizer=next(
            (folder / path for path in tokenizers if path.endswith(".model")),
            folder / tokenizers[0],
        ),
    )


def _require_package() -> None:
    try:
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise ResourceError(
            "fetching FineWeb needs the package huggingface_hub: pip install 'parbyte[hub]'"
        ) from None
    # One bar for the whole download instead of one for each file.
    disable_progress_bars()


@contextmanager
def _network_errors(repository: str) -> Iterator[None]:
    try:
        yield
    except _network_error_types() as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ResourceError(
            f"cannot fetch from '{repository}' on the hub: {reason}; try again, what is fetched "
            f"already is kept"
        ) from None


def _network_error_types() -> tuple[type[Exception], ...]:
    from huggingface_hub.utils import HfHubHTTPError

    # The bases of the hub's error are those of its HTTP library, which differs between versions.
    bases = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (OSError, HfHubHTTPError, *bases)


def _list_paths(
    manifest: Any, variant: str, num_train_shards: int, repository: str
) -> tuple[list[str], list[str]]:
    """Return the repository's paths of the shards (validation first) and tokenizer files."""
    name = f"fineweb10B_{variant}"
    try:
        datasets = {entry["name"]: entry for entry in manifest["datasets"]}
        if name not in datasets:
            known = ", ".join(sorted(key.removeprefix("fineweb10B_") for key in datasets))
            raise DataError(f"'{repository}' has no variant '{variant}'; it has {known or 'none'}")
        num_train = int(datasets[name]["stats"]["files_train"])
        num_val = int(datasets[name]["stats"]["files_val"])
        entry = next(
            tokenizer
            for tokenizer in manifest["tokenizers"]
            if tokenizer["name"] == datasets[name]["tokenizer_name"]
        )
        keys = ("model_path", "vocab_path", "path")
        tokenizers = [_inside(str(entry[key])) for key in keys if entry.get(key)]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise DataError(
            f"the manifest of '{repository}' cannot be read; is it another one?"
        ) from None
    if not 1 <= num_train_shards <= num_train or not num_val or not tokenizers:
        raise DataError(
            f"'{variant}' has {num_train:,} training and {num_val:,} validation shards and "
            f"{len(tokenizers)} tokenizer files, asked were {num_train_shards:,} training shards; "
            f"ask for 1..{num_train:,}"
        )
    parts = [("val", num_val), ("train", num_train_shards)]
    shards = [
        _inside(f"datasets/{name}/fineweb_{split}_{index:06d}.bin")
        for split, count in parts
        for index in range(count)
    ]
    return shards, tokenizers


def _inside(path: str) -> str:
    # The manifest comes from the network; it must not name files outside the folder.
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"the hub's manifest names '{path}', which lies outside its folder")
    return f"{_REMOTE_ROOT}/{path}"


def _fetch_checked(hub: _Hub, file: _RemoteFile) -> Path:
    local = hub.fetch(file.path)
    if _is_whole(local, file):
        return local
    # What lay there was damaged after an earlier download.
    local = hub.fetch(file.path, again=True)
    if _is_whole(local, file):
        return local
    local.unlink(missing_ok=True)
    raise DataError(
        f"'{file.path}' arrived damaged twice (size or SHA-256 differ from the hub's); it was "
        f"removed, try again later"
    )


def _is_whole(path: Path, file: _RemoteFile) -> bool:
    if path.stat().st_size != file.size:
        return False
    return file.sha256 is None or sha256_file(path) == file.sha256
