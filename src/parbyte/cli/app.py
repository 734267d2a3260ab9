"""The command table: one place that says which commands there are and shows an example of each."""

from typing import Annotated

import typer

import parbyte
from parbyte.cli import (
    archive_commands,
    audit_commands,
    compare_commands,
    doctor,
    model_commands,
    prove_commands,
    run_commands,
    seed_commands,
)

app = typer.Typer(
    help="Train, pack, score and prove the best language model that fits in N bytes.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_EXAMPLES = {
    run_commands.run: "parbyte run tiny --out runs/demo",
    run_commands.data: "parbyte data tiny --out runs/demo",
    run_commands.train: "parbyte train tiny --out runs/demo --set train.seconds=60",
    run_commands.pack: "parbyte pack runs/demo --set track.cap_bytes=300000",
    model_commands.score: "parbyte score runs/demo/model.parbyte notes.txt",
    archive_commands.compress: "parbyte compress runs/demo/model.parbyte notes.txt",
    archive_commands.decompress: "parbyte decompress runs/demo/model.parbyte notes.txt.pby",
    archive_commands.list: "parbyte list notes.txt.pby",
    archive_commands.test: "parbyte test runs/demo/model.parbyte notes.txt.pby",
    prove_commands.prove: "parbyte prove runs/demo",
    audit_commands.audit: "parbyte audit runs/demo",
    compare_commands.compare: "parbyte compare runs/demo runs/wider",
    seed_commands.seed: "parbyte seed --out runs/seed",
    model_commands.inspect: "parbyte inspect runs/demo/model.parbyte",
    model_commands.generate: 'parbyte generate runs/demo/model.parbyte --prompt "In the "',
    doctor.doctor: "parbyte doctor",
}
for _command, _example in _EXAMPLES.items():
    app.command(epilog=f"Example: {_example}")(_command)


@app.callback(invoke_without_command=True)
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train, pack, score and prove the best language model that fits in N bytes."""
    if version:
        print(f"parbyte {parbyte.__version__}")
        raise typer.Exit
