"""The commands around compressed files: compress, decompress, list, test."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.log import console_for
from parbyte.base.machine import num_cores
from parbyte.base.units import coded_bits_per_byte
from parbyte.cli.entry import DONE, NOT_PROVEN
from parbyte.cli.options import (
    DeviceOption,
    JobsOption,
    JsonOption,
    LanesOption,
    ModelArgument,
    QuietOption,
    ThreadsOption,
    artifact_path,
    codec_config,
)
from parbyte.cli.output import Row, emit
from parbyte.codec.config import CodecConfig

if TYPE_CHECKING:
    from parbyte.codec.archive import ArchiveResult
    from parbyte.codec.salvage import Loss

_SUFFIX = ".pby"
_PIPE = Path("-")
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE|DIR|-", help="Any file or folder; -: standard input.")
]
ArchiveArgument = Annotated[
    Path, typer.Argument(metavar="FILE|-", help="A compressed file; -: standard input.")
]
OutFile = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="OUT", help="Result; -: standard output.")
]
FrameOption = Annotated[
    int,
    typer.Option(
        "--frame-bytes",
        min=1 << 10,
        max=1 << 28,
        help="Text of one frame: what damage costs, what one core works on.",
    ),
]
_CODEC = CodecConfig()
_FRAME_BYTES = 1 << 20


def compress(
    model: ModelArgument,
    file: FileArgument,
    out: OutFile = None,
    lanes: LanesOption = _CODEC.lanes,
    threads: ThreadsOption = _CODEC.threads,
    device: DeviceOption = _CODEC.device,
    frame_bytes: FrameOption = _FRAME_BYTES,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Write FILE or DIR as one file that only this model can read; default: FILE.pby."""
    source, artifact = _input(file, folders=True), artifact_path(model)
    result_path = out or (_PIPE if file == _PIPE else _beside(file))
    from parbyte.codec.restore import compress_path

    config = codec_config(lanes, threads, device, frame_bytes)
    sink, console = _output(result_path, as_json), console_for(quiet=quiet)
    jobs = jobs or num_cores()
    done, left_out = compress_path(artifact, source, sink, config, console, jobs)
    for name in left_out:
        console.say(f"left out: {name!r} is no file or folder")
    result = {
        **_figures(result_path, done),
        "coded_bpb": _bpb(done) if done.text_bytes else None,
        "decodes": done.decodes,
        "left_out": left_out,
    }
    rows = [
        ("bitstream", f"{done.bitstream_bytes:,} bytes", str(result_path)),
        ("text", f"{done.text_bytes:,} bytes", _speed(done)),
        ("frames", f"{sum(done.frames.values()):,}", _methods(done)),
    ]
    if done.text_bytes:
        rows.append(("bpb", f"{_bpb(done):.4f}", "coded, not yet decoded"))
    rows.append(("decodes", done.decodes, ""))
    _emit(result, rows, result_path, as_json)
    return DONE


def decompress(
    model: ModelArgument,
    file: ArchiveArgument,
    out: OutFile = None,
    doc: Annotated[
        int | None, typer.Option("--doc", min=0, metavar="N", help="Only this document, from 0.")
    ] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Write what is whole of a damaged file.")
    ] = False,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Restore what was compressed, byte for byte; default: FILE without its .pby, if new."""
    source, artifact = _input(file), artifact_path(model)
    if doc is not None and (salvage or out is None):
        raise RecipeError("--doc needs -o OUT, or -o - for standard output, and no --salvage")
    if out is None and file != _PIPE and file.suffix != _SUFFIX:
        raise RecipeError(f"'{file}' does not end in {_SUFFIX}: name the result with -o OUT")
    result_path = out or (_PIPE if file == _PIPE else file.with_suffix(""))
    if result_path != _PIPE and file != _PIPE and result_path.resolve() == file.resolve():
        raise DataError(f"'{result_path}' would overwrite its own source: choose another output")
    if out is None and result_path.is_file():
        raise DataError(f"'{result_path}' exists: to replace it, name it with -o {result_path}")
    from parbyte.codec.restore import restore

    sink, console = _output(result_path, as_json), console_for(quiet=quiet)
    jobs = jobs or num_cores()
    done, losses = restore(
        artifact, source, sink, console, document=doc, is_salvage=salvage, jobs=jobs
    )
    _tell(losses)
    rows = [
        ("text", f"{done.text_bytes:,} bytes", str(result_path)),
        ("decoding", f"{done.seconds:.1f} s", _speed(done)),
    ]
    result = {**_figures(result_path, done), "lost": _lost(losses)}
    _emit(result, rows, result_path, as_json)
    return NOT_PROVEN if losses else DONE


def list(
    file: ArchiveArgument,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show the documents of a compressed file; no model is needed."""
    from parbyte.codec.restore import list_archive
    from parbyte.codec.tree import shown_name

    found = [
        {
            "doc": number,
            "name": shown_name(item.name),
            "mode": f"{item.mode:03o}" if item.name else None,
            "bytes": item.size,
            "is_folder": item.is_folder,
        }
        for number, item in enumerate(list_archive(_input(file)))
    ]
    rows: Sequence[Row] = [
        (str(row["doc"]), f"{row['bytes']:,} bytes", f"{row['mode']} {row['name']}".strip())
        if row["name"]
        else (str(row["doc"]), f"{row['bytes']:,} bytes", "without a name")
        for row in found
    ]
    emit({"documents": found}, rows, as_json=as_json)
    return DONE


def test(
    model: ModelArgument,
    file: ArchiveArgument,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Decode a compressed file without writing it; exit 1 if any of it is damaged."""
    source, artifact = _input(file), artifact_path(model)
    from parbyte.codec.restore import examine

    done, losses = examine(artifact, source, console_for(quiet=quiet), jobs or num_cores())
    _tell(losses)
    figures = _figures(None, done)
    result = {"sound": not losses, **figures, "lost": _lost(losses)}
    rows = [
        ("sound", "no" if losses else "yes", str(file)),
        ("text", f"{done.text_bytes:,} bytes", _speed(done)),
        ("frames", f"{sum(done.frames.values()):,}", _methods(done)),
    ]
    emit(result, rows, as_json=as_json)
    return NOT_PROVEN if losses else DONE


def _input(file: Path, *, folders: bool = False) -> Path | IO[bytes]:
    if file == _PIPE:
        return sys.stdin.buffer
    if not file.is_file() and not (folders and file.is_dir()):
        raise DataError(f"no file '{file}'")
    return file


def _output(path: Path, as_json: bool) -> Path | IO[bytes]:
    if path != _PIPE:
        return path
    if as_json:
        raise RecipeError("--json and the result both want standard output: name a file with -o")
    return sys.stdout.buffer


def _beside(file: Path) -> Path:
    name = file.name or file.resolve().name
    return (file if file.name else file.resolve()).with_name(name + _SUFFIX)


def _emit(result: dict[str, Any], rows: Sequence[Row], path: Path, as_json: bool) -> None:
    """Print a result unless standard output is the result."""
    if path != _PIPE:
        emit(result, rows, as_json=as_json)


def _tell(losses: Sequence["Loss"]) -> None:
    for loss in losses:
        print(f"parbyte: {loss}", file=sys.stderr)


def _lost(losses: Sequence["Loss"]) -> Sequence[dict[str, Any]]:
    return [{"start": loss.start, "stop": loss.stop, "reason": loss.reason} for loss in losses]


def _figures(path: Path | None, done: "ArchiveResult") -> dict[str, Any]:
    figures = {
        "bytes": done.text_bytes,
        "bitstream_bytes": done.bitstream_bytes,
        "documents": done.documents,
        "frames": done.frames,
        "tokens": done.tokens,
        "seconds": done.seconds,
    }
    return {"out": str(path), **figures} if path else figures


def _bpb(done: "ArchiveResult") -> float:
    return coded_bits_per_byte(done.bitstream_bytes, done.text_bytes)


def _speed(done: "ArchiveResult") -> str:
    return f"{done.tokens:,} tokens, {done.tokens / max(done.seconds, 1e-9):,.0f} tokens/s"


def _methods(done: "ArchiveResult") -> str:
    return ", ".join(f"{number:,} {name}" for name, number in done.frames.items())
