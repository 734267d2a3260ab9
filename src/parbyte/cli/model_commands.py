"""Commands that work on an artifact: score, inspect, generate."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.errors import RecipeError
from parbyte.base.log import console_for
from parbyte.cli.entry import DONE
from parbyte.cli.options import (
    DeviceOption,
    JsonOption,
    LanesOption,
    ModelArgument,
    OutOption,
    QuietOption,
    SetOption,
    ThreadsOption,
    artifact_path,
    codec_config,
    input_file,
    refuse_options,
)
from parbyte.cli.output import Row, emit, stage_rows
from parbyte.cli.run_commands import advance
from parbyte.codec.config import CodecConfig

_CODEC = CodecConfig()
_CODEC_OPTIONS = ("lanes", "threads", "device")
_BAR_BLOCKS = 24


def score(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RECIPE", help="An artifact; or a recipe or run folder.")
    ],
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The text.")] = None,
    lanes: LanesOption = _CODEC.lanes,
    threads: ThreadsOption = _CODEC.threads,
    device: DeviceOption = _CODEC.device,
    out: OutOption = None,
    set_: SetOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each stage is worth.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure the bits per byte of a file; without FILE, do a recipe as far as scoring."""
    if file is None:
        if explain:
            raise RecipeError("--explain needs a FILE; a run's own is in its explanation.json")
        refuse_options(
            context, _CODEC_OPTIONS, "belongs to a FILE; of a recipe, --set codec.KEY=VALUE"
        )
        return advance(model, out, set_, as_json, quiet, until="score")
    if set_ or out:
        raise RecipeError("--set and --out belong to a recipe: leave them out with a FILE")
    from parbyte.scoring import measure_file

    config = codec_config(lanes, threads, device, _CODEC.frame_bytes)
    ledger, explanation = measure_file(
        artifact_path(Path(model)), input_file(file), config, console_for(quiet=quiet)
    )
    result: dict[str, Any] = {
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
    if explain:
        result |= explanation.to_json()
        rows += stage_rows(result["stages"])
    emit(result, rows, as_json=as_json)
    return DONE


def inspect(
    model: ModelArgument,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure on it what each tensor's rounding costs."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show what an artifact is made of, to the byte; with --text, what each tensor costs there."""
    from parbyte.pack.artifact import inspect_artifact

    contents = inspect_artifact(artifact_path(model))
    if text is not None:
        from parbyte.cli.inspection import add_costs

        add_costs(contents, model, input_file(text), console_for(quiet=quiet))
    emit(contents, _content_rows(contents), as_json=as_json)
    return DONE


def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to go on from.")] = "",
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


def _content_rows(contents: dict[str, Any]) -> list[Row]:
    """Return a line per part with a bar of its share, then a line per tensor."""
    parts = contents["parts"]
    total, largest = sum(parts.values()), max(parts.values())
    rows = [
        (name, f"{size:,} bytes", f"{_bar(size / largest)} {100 * size / total:.1f} %")
        for name, size in parts.items()
    ]
    rows.append(("total", f"{total:,} bytes", "as the file's size"))
    if "costs" in contents:
        rows += _cost_rows(contents["costs"], contents["round_trip"])
    for tensor in contents.get("tensors", []):
        rows.append((tensor["name"], f"{tensor['bytes']:,} bytes", _tensor_line(tensor)))
    return rows


def _cost_rows(costs: dict[str, Any], round_trip: dict[str, bool]) -> list[Row]:
    """Return what the whole file costs on the text, and whether it survives being coded again."""
    failed = [name for name, is_equal in round_trip.items() if not is_equal]
    window = f"the network alone, windows of {costs['window']:,} tokens"
    return [
        ("float bpb", f"{costs['float_bpb']:.4f}", f"{costs['against']}, {window}"),
        ("packed bpb", f"{costs['packed_bpb']:.4f}", f"{costs['text']}, {costs['bytes']:,} bytes"),
        ("coded again", "differs" if failed else "equal", ", ".join(failed or round_trip)),
    ]


def _tensor_line(tensor: dict[str, Any]) -> str:
    facts = [" x ".join(str(size) for size in tensor["shape"])]
    facts.append(f"{tensor['bits_per_weight']:.2f} bits a weight")
    if "entropy_bits" in tensor:
        facts.append(f"entropy {tensor['entropy_bits']:.2f}")
        if "rms_error_percent" in tensor:
            facts.append(f"error {tensor['rms_error_percent']:.1f} %")
        facts.append(f"scales {tensor['scale_bytes']:,}")
    if tensor.get("repair_bytes"):
        facts.append(f"repairs {tensor['repair_bytes']:,}")
    if "cost_bpb" in tensor:
        facts.append(f"costs {tensor['cost_bpb']:+.5f} bpb")
    return ", ".join([*facts, tensor["coder"]])


def _bar(share: float) -> str:
    """Return a bar of at most 24 blocks, in eighths of a block."""
    eighths = round(share * 8 * _BAR_BLOCKS)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).ljust(_BAR_BLOCKS)
