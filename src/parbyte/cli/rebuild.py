"""Builds a run's artifact anew beside other held-out text: what check T5 of the audit asks for.

The training text is written to a corpus of its own, the held-out text to a file; then the run's
recipe goes through the stages data, train and pack, with a fixed number of steps for its clock.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from parbyte.base.log import Console
from parbyte.pipeline import run_stages
from parbyte.recipe import Recipe
from parbyte.run_folder import ARTIFACT_FILE, Run

if TYPE_CHECKING:
    from parbyte.audit.subject import Build

STAND_IN = b"Pack my box with five dozen liquor jugs.\n"
"""A run must hold some text out: this one, where the held-out text is to be absent."""


def rebuilder(recipe: Recipe, steps: int, scratch: Path) -> "Build | None":
    """Return how an artifact is built from held-out text; None for a corpus of token shards.

    scratch: an empty folder, the same for all builds, since the recipe in the artifact names it.
    Raises DataError if the run's corpus is no longer there.
    """
    from parbyte.text.contest import find_contest_shards
    from parbyte.text.sources import open_corpus
    from parbyte.text.splits import split_corpus

    if find_contest_shards(recipe.text) is not None:
        return None
    corpus, heldout = scratch / "corpus", scratch / "heldout.txt"
    corpus.mkdir()
    text = split_corpus(open_corpus(recipe.text), recipe.text)
    write_corpus(text.training_documents(with_dev=True), corpus)
    changed = replace(
        recipe,
        text=replace(recipe.text, corpus=str(corpus), documents="file", heldout=str(heldout)),
        train=replace(recipe.train, steps=steps),
    )

    def build(heldout_text: bytes | None) -> bytes:
        heldout.write_bytes(heldout_text or STAND_IN)
        with TemporaryDirectory(dir=scratch) as name:
            run = Run(Path(name), changed, Console(quiet=True))
            run_stages(run, until="pack")
            return run.path(ARTIFACT_FILE).read_bytes()

    return build


def write_corpus(documents: Iterable[bytes], folder: Path) -> None:
    """Write documents as files that a corpus of files reads in the same order.

    Runs of text become JSON lines; a document that is no UTF-8 becomes a file of its own.
    """
    numbers = count()
    for is_text, group in groupby(documents, key=_is_text):
        if is_text:
            with (folder / f"{next(numbers):09}.jsonl").open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps({"text": text.decode()}) + "\n" for text in group)
        else:
            for data in group:
                (folder / f"{next(numbers):09}.txt").write_bytes(data)


def _is_text(document: bytes) -> bool:
    try:
        document.decode()
    except UnicodeDecodeError:
        return False
    return True
