"""The command `prove`: of a run folder, or of an artifact, a bitstream and the text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.files import sha256_file
from parbyte.base.log import console_for
from parbyte.base.units import coded_bits_per_byte
from parbyte.cli.entry import DONE, NOT_PROVEN, crashes_kept_in
from parbyte.cli.options import (
    JsonOption,
    OutOption,
    QuietOption,
    SetOption,
    input_file,
    refuse_options,
)
from parbyte.cli.output import Row, emit
from parbyte.cli.run_commands import advance, open_run, show_scorecard
from parbyte.pipeline import prove_again
from parbyte.recipe import is_run_folder
from parbyte.run_folder import BITSTREAM_FILE

if TYPE_CHECKING:
    from parbyte.audit.proof import ProofResult


def prove(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="RUN|RECIPE|MODEL", help="A run; or an artifact.")
    ],
    bitstream: Annotated[
        Path | None,
        typer.Argument(metavar="BITSTREAM", help="With a MODEL: what it shall decode."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With a MODEL: the text that must come out."),
    ] = None,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Decode in a fresh process and compare; of a run folder, the files just as they stand."""
    if bitstream is not None or text is not None:
        refuse_options(context, ("out", "set_"), "belongs to a run or a recipe, not to a MODEL")
        return _prove_files(subject, bitstream, text, as_json, quiet)
    if _is_artifact(Path(subject)):
        raise RecipeError(f"'{subject}' is an artifact: give MODEL BITSTREAM --text FILE")
    is_coded = is_run_folder(subject) and (Path(subject) / BITSTREAM_FILE).is_file()
    if not is_coded or out or set_:
        return advance(subject, out, set_, as_json, quiet, until="prove")
    this = open_run(subject, None, None, console_for(quiet=quiet))
    with crashes_kept_in(this.folder):
        prove_again(this)
    return show_scorecard(this, as_json)


def _prove_files(
    model: str, bitstream: Path | None, text: Path | None, as_json: bool, quiet: bool
) -> int:
    if Path(model).is_dir():
        raise RecipeError(
            f"'{model}' is a folder: prove a run alone, or give MODEL BITSTREAM --text FILE"
        )
    if bitstream is None:
        raise RecipeError("--text belongs to MODEL BITSTREAM: give all three, or a run folder")
    if text is None:
        raise RecipeError("MODEL BITSTREAM needs --text FILE: the text that must come out")
    artifact, bitstream, text = (input_file(path) for path in (Path(model), bitstream, text))
    _refuse_foreign(artifact, bitstream)
    from parbyte.audit.proof import prove as decode_and_compare

    text_bytes = text.stat().st_size
    result = decode_and_compare(
        artifact,
        bitstream,
        expected_sha256=sha256_file(text),
        expected_bytes=text_bytes,
        original=text,
        quiet=quiet,
    )
    verdict = _verdict(result, text_bytes)
    emit(verdict, _verdict_rows(verdict), as_json=as_json)
    return DONE if result.proven else NOT_PROVEN


def _refuse_foreign(artifact: Path, bitstream: Path) -> None:
    """Refuse files that were never ours: mistaken for others, they prove nothing of anybody."""
    from parbyte.audit.proof import first_bytes
    from parbyte.codec.record import FAMILY

    if not _is_artifact(artifact):
        raise DataError(f"'{artifact}' is no parbyte artifact: give MODEL BITSTREAM --text FILE")
    if not first_bytes(bitstream).startswith(FAMILY):
        raise DataError(f"'{bitstream}' is no file that parbyte compressed")


def _is_artifact(path: Path) -> bool:
    from parbyte.audit.proof import first_bytes
    from parbyte.pack.container import MAGIC

    return path.is_file() and first_bytes(path).startswith(MAGIC)


def _verdict(result: "ProofResult", text_bytes: int) -> dict[str, Any]:
    is_rate = result.proven and text_bytes > 0
    return {
        "decoded_equal": result.proven,
        "reason": result.reason,
        "text_bytes": text_bytes,
        "bitstream_bytes": result.bitstream_bytes,
        "artifact_bytes": result.artifact_bytes,
        "coded_bpb": coded_bits_per_byte(result.bitstream_bytes, text_bytes) if is_rate else None,
        "decode_seconds": result.decode_seconds,
        "hashes": {
            "decoded_text": result.text_sha256,
            "bitstream": result.bitstream_sha256,
            "artifact": result.artifact_sha256,
        },
    }


def _verdict_rows(verdict: dict[str, Any]) -> list[Row]:
    is_equal, hashes = verdict["decoded_equal"], verdict["hashes"]
    rows: list[Row] = [
        (
            "decoded equal",
            "yes" if is_equal else "no",
            verdict["reason"] or "by a fresh process, byte for byte",
        )
    ]
    if verdict["coded_bpb"] is not None:
        rows.append(("bpb", f"{verdict['coded_bpb']:.4f}", "coded"))
    return [
        *rows,
        ("text", f"{verdict['text_bytes']:,} bytes", ""),
        ("bitstream", f"{verdict['bitstream_bytes']:,} bytes", f"SHA-256 {hashes['bitstream']}"),
        ("artifact", f"{verdict['artifact_bytes']:,} bytes", f"SHA-256 {hashes['artifact']}"),
        ("decoding", f"{verdict['decode_seconds']:.1f} s", ""),
    ]
