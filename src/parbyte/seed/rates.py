"""How fast the twins' `ttt` learns: of a few rates the one that is best on development text.

A large network wants smaller steps than the small ones that the stage's own rates are for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.base.log import Console
from parbyte.codec.config import CodecConfig
from parbyte.pack.artifact import Artifact
from parbyte.predict.adapter_config import TTTConfig
from parbyte.run_folder import DATA_FOLDER
from parbyte.scoring import measure_documents
from parbyte.text.prepare import split_documents

SHARES = (1.0, 0.3, 0.1, 0.03)
"""What the stage's own rates are multiplied by."""
_MAX_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The stage `ttt` of all twins, and what each rate made of the development text."""

    stage: dict[str, Any]
    tokens: int
    rates: list[dict[str, float]]
    """`share` of the stage's own rates, `measured_bpb`."""


def stage_at(share: float) -> dict[str, Any]:
    """Return the stage `ttt` with so large a share of its own rates."""
    own = TTTConfig()
    rates = {"lr": own.lr, "embed_lr": own.embed_lr, "scalar_lr": own.scalar_lr}
    return {"kind": own.kind, **{name: share * rate for name, rate in rates.items()}}


def choose_learning(
    run: Path, artifact: Artifact, predict: Mapping[str, Any], codec: CodecConfig
) -> Learning:
    """Measure the beginning of the run's development text at every rate, and keep the best.

    predict: the settings around the stage, which becomes their whole stack.
    """
    ids = list(_first(split_documents(run / DATA_FOLDER, "dev", artifact.tokenizer)))
    rates = []
    for share in SHARES:
        learner = replace(artifact, predict={**predict, "stack": [stage_at(share)]})
        ledger, _ = measure_documents(learner, ids, codec, Console(quiet=True))
        rates.append({"share": share, "measured_bpb": ledger.bpb})
    best = min(rates, key=lambda rate: rate["measured_bpb"])
    return Learning(stage=stage_at(best["share"]), tokens=sum(map(len, ids)), rates=rates)


def _first(documents: Iterator[NDArray[np.uint16]]) -> Iterator[NDArray[np.uint16]]:
    left = _MAX_TOKENS
    for document in documents:
        yield document[:left]
        left -= len(document)
        if left <= 0:
            return
