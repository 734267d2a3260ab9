"""Commands that work on an artifact: score, compress, decompress, inspect, generate."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.errors import RecipeError
from parbyte.base.log import console_for
from parbyte.base.units import coded_bits_per_byte
from parbyte.cli.entry import DONE
from parbyte.cli.options import (
    JsonOption,
    ModelArgument,
    OutOption,
    QuietOption,
    SetOption,
    artifact_path,
    input_file,
)
from parbyte.cli.output import Row, emit
from parbyte.cli.run_commands import advance
from parbyte.codec.config import CodecConfig

_SUFFIX = ".pby"
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Any file.")]
OutFile = Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT", help="Result file.")]
LanesOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Streams coded side by side: more are faster.")
]
ThreadsOption = Annotated[int, typer.Option(min=1, max=256, help="CPU threads.")]
_CODEC = CodecConfig()


def score(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RECIPE", help="An artifact; or a recipe or run folder.")
    ],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The text.")] = None,
    lanes: LanesOption = _CODEC.lanes,
    threads: ThreadsOption = _CODEC.threads,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure the bits per byte of a file; without FILE, do a recipe as far as scoring."""
    if file is None:
        return advance(model, out, set_, as_json, quiet, until="score")
    if set_ or out:
        raise RecipeError("--set and --out belong to a recipe: leave them out with a FILE")
    from parbyte.scoring import measure_file

    config = CodecConfig(lanes=lanes, threads=threads)
    ledger = measure_file(
        artifact_path(Path(model)), input_file(file), config, console_for(quiet=quiet)
    )
    result = {
        "measured_bpb": ledger.bpb,
        "bytes": ledger.num_bytes,
        "tokens": ledger.num_tokens,
        "nats": ledger.nats,
        "documents": len(ledger.documents),
    }
    rows = [
        ("bpb", f"{ledger.bpb:.4f}", "measured"),
        ("text", f"{ledger.num_bytes:,} bytes", f"{ledger.num_tokens:,} tokens"),
    ]
    emit(result, rows, as_json=as_json)
    return DONE


def compress(
    model: ModelArgument,
    file: FileArgument,
    out: OutFile = None,
    lanes: LanesOption = _CODEC.lanes,
    threads: ThreadsOption = _CODEC.threads,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Write FILE as a bitstream that only this model can read; default: FILE.pby."""
    source, artifact = input_file(file), artifact_path(model)
    target = out or source.with_name(source.name + _SUFFIX)
    from parbyte.codec.compress import compress_file

    config = CodecConfig(lanes=lanes, threads=threads)
    done = compress_file(artifact, source, target, config, console_for(quiet=quiet))
    bpb = coded_bits_per_byte(done.bitstream_bytes, done.text_bytes)
    result = {
        "out": str(target),
        "bytes": done.text_bytes,
        "bitstream_bytes": done.bitstream_bytes,
        "coded_bpb": bpb if done.text_bytes else None,
        "tokens": done.tokens,
        "seconds": done.seconds,
    }
    rows = [
        ("bitstream", f"{done.bitstream_bytes:,} bytes", str(target)),
        ("text", f"{done.text_bytes:,} bytes", _speed(done.tokens, done.seconds)),
    ]
    if done.text_bytes:
        rows.append(("bpb", f"{bpb:.4f}", "coded, not yet decoded"))
    emit(result, rows, as_json=as_json)
    return DONE


def decompress(
    model: ModelArgument,
    file: FileArgument,
    out: OutFile = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Restore the text of a bitstream, byte for byte; default: FILE without its .pby."""
    source, artifact = input_file(file), artifact_path(model)
    if out is None and source.suffix != _SUFFIX:
        raise RecipeError(f"'{source}' does not end in {_SUFFIX}: name the result with -o OUT")
    target = out or source.with_suffix("")
    from parbyte.codec.compress import decompress_file

    done = decompress_file(artifact, source, target, console_for(quiet=quiet))
    result = {
        "out": str(target),
        "bytes": done.text_bytes,
        "bitstream_bytes": done.bitstream_bytes,
        "tokens": done.tokens,
        "seconds": done.seconds,
    }
    rows = [
        ("text", f"{done.text_bytes:,} bytes", str(target)),
        ("decoding", f"{done.seconds:.1f} s", _speed(done.tokens, done.seconds)),
    ]
    emit(result, rows, as_json=as_json)
    return DONE


def inspect(
    model: ModelArgument,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show what an artifact is made of, to the byte."""
    from parbyte.pack.artifact import inspect_artifact

    contents = inspect_artifact(artifact_path(model))
    emit(contents, _content_rows(contents), as_json=as_json)
    return DONE


def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to draw at most.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Print text that the model finds likely."""
    from parbyte.pack.artifact import load_artifact
    from parbyte.predict.build import build_predictor
    from parbyte.predict.sample import generate as draw

    artifact = load_artifact(artifact_path(model))
    pieces = draw(
        build_predictor(artifact),
        artifact.tokenizer,
        prompt.encode(),
        tokens,
        temperature=temperature,
        seed=seed,
    )
    if as_json:
        text = b"".join(pieces).decode(errors="replace")
        emit({"prompt": prompt, "text": text}, [], as_json=True)
        return DONE
    sys.stdout.buffer.write(prompt.encode())
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    return DONE


def _speed(tokens: int, seconds: float) -> str:
    return f"{tokens:,} tokens, {tokens / max(seconds, 1e-9):,.0f} tokens/s"


def _content_rows(contents: dict[str, Any]) -> list[Row]:
    parts = contents["parts"]
    total = sum(parts.values())
    rows = [
        (name, f"{size:,} bytes", f"{100 * size / total:.1f} %") for name, size in parts.items()
    ]
    rows.append(("total", f"{total:,} bytes", ""))
    for tensor in contents.get("tensors", []):
        shape = " x ".join(str(size) for size in tensor["shape"])
        figures = [f"{name} {tensor[name]}" for name in ("bits", "coder") if name in tensor]
        rows.append((tensor["name"], f"{tensor['bytes']:,} bytes", ", ".join([shape, *figures])))
    return rows
