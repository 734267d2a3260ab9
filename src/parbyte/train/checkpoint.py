"""Checkpoints: everything a killed run needs to go on, in a folder that is whole or absent.

`<root>/step-00000010/` holds `tensors.safetensors` and `state.json`. It is written under another
name and renamed when it is complete; only then does the one before it go.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from parbyte.base.errors import DataError
from parbyte.base.files import read_json, resource_error, write_bytes, write_json

_FORMAT = 2
_TENSORS_FILE = "tensors.safetensors"
_STATE_FILE = "state.json"
_PREFIX = "step-"
_PART = ".part"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, beside its tensors."""

    fingerprint: str
    """Hash of model, recipe and data; see fingerprint_of."""
    step: int
    elapsed_s: float
    loader: dict[str, int]
    recent_losses: list[float]
    qat_from: int | None
    """First step that saw rounded weights; None before it."""
    format: int = _FORMAT


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """Return a hash of plain values: what must be equal for a checkpoint to be resumed."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_checkpoint(root: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint beside the one before it, then remove that one.

    Raises ResourceError if the disk refuses; the checkpoint before then stays.
    """
    final = root / f"{_PREFIX}{progress.step:08d}"
    part = root / f".{final.name}{_PART}"
    try:
        write_bytes(part / _TENSORS_FILE, save(dict(tensors)))
        write_json(part / _STATE_FILE, asdict(progress))
        os.replace(part, final)
        for older in _folders(root):
            if older != final:
                shutil.rmtree(older)
    except OSError as error:
        raise resource_error(error, final) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def find_checkpoint(root: Path) -> Path | None:
    """Return the folder of the newest checkpoint, or None."""
    return max(_folders(root), default=None)


def load_progress(folder: Path) -> Progress:
    """Read where a checkpoint stands; raises DataError if it is damaged or of another format."""
    table = read_json(folder / _STATE_FILE)
    if not isinstance(table, dict) or table.get("format") != _FORMAT:
        raise DataError(f"checkpoint '{folder}' is of another format")
    try:
        return Progress(**table)
    except TypeError:
        raise DataError(f"checkpoint '{folder}' is damaged: '{_STATE_FILE}' lacks keys") from None


def restore_(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint's tensors into the live `tensors` of the same names and shapes.

    Raises DataError if the file is damaged or holds other tensors; nothing is copied then.
    """
    path = folder / _TENSORS_FILE
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"checkpoint '{path}' is damaged: {error}") from None
    same_names = saved.keys() == tensors.keys()
    if not same_names or any(saved[name].shape != t.shape for name, t in tensors.items()):
        raise DataError(f"checkpoint '{path}' holds other tensors than this run")
    for name, tensor in tensors.items():
        tensor.detach().copy_(saved[name])


def remove_checkpoints(root: Path) -> None:
    """Remove all checkpoints, and what a killed process left half-written."""
    try:
        for folder in [*_folders(root), *root.glob(f".{_PREFIX}*{_PART}")]:
            shutil.rmtree(folder)
    except OSError as error:
        raise resource_error(error, root) from None


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob(f"{_PREFIX}*"))
