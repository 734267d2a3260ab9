"""What must be the same to decode as it was to encode: model, engine, device, threads, machine.

The torch engine repeats its floats bit for bit only under these conditions, so the header records
them. All but the last must match; another machine or torch version may well give the same bits, so
there decoding is tried and the text's digest decides. The portable engine gives the same bits
everywhere: its header names no device, threads or machine of its own, so that its files are the
same everywhere too.
"""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from parbyte.base.errors import BitstreamError, RecipeError
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.base.world import World
from parbyte.codec.bitstream import MAX_TURNS, Header, digests
from parbyte.codec.config import CodecConfig
from parbyte.pack.artifact import Artifact
from parbyte.predict.build import read_settings
from parbyte.predict.predictor import Predictor
from parbyte.train.device import pick_device

ANYWHERE = "anywhere"
_ANY_MACHINE = bytes(4)


def place(artifact: Artifact, device: str) -> None:
    """Move the model to where it shall run: auto, cpu or cuda.

    auto is a GPU if there is one; the portable engine runs on the CPU. Raises ResourceError.
    """
    is_portable = read_settings(artifact.predict).engine == "portable"
    artifact.model.to(pick_device("cpu" if is_portable else device, World()))


def place_for(found: Header, artifact: Artifact) -> None:
    """Move the model to where a bitstream was made, if that is here (else: check_conditions)."""
    place(artifact, "cpu" if found.device == "cpu" else "auto")


def choose_turns(config: CodecConfig, predictor: Predictor, artifact: Artifact) -> int:
    """Return how many groups of lanes take turns. Raises RecipeError if they cannot."""
    can_take_turns = predictor.twin() is not None
    if config.turns > 1 and not can_take_turns:
        raise RecipeError(
            f"codec.turns is {config.turns}, but this model's lanes cannot take turns: set it to 1"
        )
    is_on_gpu = next(artifact.model.parameters()).device.type == "cuda"
    return config.turns or (MAX_TURNS if is_on_gpu and can_take_turns else 1)


def conditions(artifact: Artifact, threads: int, turns: int = 1) -> Header:
    """Return the header of a bitstream that this process would write with this artifact."""
    tokenizer_sha256 = hashlib.sha256(artifact.tokenizer.to_blob()).hexdigest()
    artifact_digest, tokenizer_digest = digests(artifact.sha256, tokenizer_sha256)
    engine = read_settings(artifact.predict).engine
    if engine == "portable":
        return Header(artifact_digest, tokenizer_digest, engine, "cpu", 1, _ANY_MACHINE)
    device = next(artifact.model.parameters()).device
    return Header(
        artifact=artifact_digest,
        tokenizer=tokenizer_digest,
        engine=engine,
        device=device.type,
        threads=threads,
        machine=_machine_digest(device),
        turns=turns,
    )


def decoding_place(here: Header) -> str:
    """Say where a bitstream decodes that this process writes under the header `here`."""
    if here.engine == "portable":
        return ANYWHERE
    threads = "1 thread" if here.threads == 1 else f"{here.threads} threads"
    version = describe_versions()["torch"]
    return f"on {here.device} with {threads}, in practice this torch ({version})"


def decoding_threads(found: Header) -> int:
    """Return how many threads decode a bitstream: its own, or this process's if it takes any."""
    return torch.get_num_threads() if found.engine == "portable" else found.threads


def check_conditions(found: Header, here: Header) -> None:
    """Raise BitstreamError if a bitstream's header asks for what is not here."""
    if found.artifact != here.artifact:
        raise BitstreamError(
            f"the file was compressed with another model: it needs the one whose SHA-256 begins "
            f"with {found.artifact.hex()[:12]}, this one's begins with {here.artifact.hex()[:12]}"
        )
    if found.tokenizer != here.tokenizer:
        raise BitstreamError("the file was compressed with another tokenizer than the model's")
    for name, needs, has in (
        ("engine", found.engine, here.engine),
        ("device", found.device, here.device),
    ):
        if needs != has:
            raise BitstreamError(
                f"the file was compressed with {name} '{needs}', decoding here would use '{has}': "
                f"decompress it with {name} '{needs}'"
            )


def explain(error: BitstreamError, found: Header, here: Header) -> BitstreamError:
    """Say what else may be at fault when undamaged bits do not decode."""
    if found.machine == here.machine:
        return error
    return BitstreamError(
        f"{error}; it was compressed on another processor or with other versions of torch, numpy "
        f"or constriction: decompress it there"
    )


@contextmanager
def coding_arithmetic(threads: int) -> Iterator[None]:
    """Compute with this number of threads and full float32, and put the settings back."""
    threads_before = torch.get_num_threads()
    precision_before = torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_float32_matmul_precision(precision_before)


def _machine_digest(device: torch.device) -> bytes:
    versions = describe_versions()
    parts = [
        platform.machine(),
        describe_machine()["cpu"],
        torch.backends.cpu.get_cpu_capability(),
        torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        *(versions[name] for name in ("torch", "numpy", "constriction")),
    ]
    return hashlib.sha256("\n".join(parts).encode()).digest()[:4]
