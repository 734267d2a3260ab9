"""What `parbyte inspect --text` measures: each tensor's cost on a text, and the round trip."""

from pathlib import Path
from typing import Any

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.log import Console
from parbyte.run_folder import ARTIFACT_FILE, WEIGHTS_FILE

_PROBE_TOKENS = 256


def add_costs(contents: dict[str, Any], run: Path, source: Path, console: Console) -> None:
    """Add to what `inspect_artifact` said the costs on a text and the checks of the round trip.

    A cost is that of one tensor as it is packed among the run's float weights. run: a run folder.
    Raises RecipeError if it is a lone artifact, which holds no float weights; DataError if the text
    is empty or cannot be encoded.
    """
    from safetensors.torch import load_file

    from parbyte.pack.artifact import load_artifact
    from parbyte.pack.round_trip import check_round_trip
    from parbyte.predict.build import read_settings
    from parbyte.score.tensor_costs import Reading, tensor_costs

    weights = run / WEIGHTS_FILE
    if not weights.is_file():
        raise RecipeError(
            f"--text compares with the float weights, and '{weights}' is not there: "
            "give the run folder that the artifact was made in"
        )
    artifact = load_artifact(run / ARTIFACT_FILE)
    content = source.read_bytes()
    ids = artifact.tokenizer.encode(content)
    if not len(ids):
        raise DataError(f"'{source}' is empty: there is nothing to measure")
    window = read_settings(artifact.predict).window
    reading = Reading.of(ids, artifact.tokenizer.bos_id, window, len(content))
    rows = contents["tensors"]
    console.say(f"inspect: measures {len(rows)} tensors on {len(ids):,} tokens, one at a time")
    names = [row["name"] for row in rows]
    costs = tensor_costs(artifact.model, load_file(weights), names, reading)
    for row in rows:
        row["cost_bpb"] = costs.cost_bpb[row["name"]]
        row["error_percent"] = round(costs.error_percent[row["name"]], 4)
    contents["costs"] = {
        "against": str(weights),
        "text": str(source),
        "bytes": len(content),
        "tokens": len(ids),
        "window": window,
        "float_bpb": costs.float_bpb,
        "packed_bpb": costs.packed_bpb,
    }
    probe = reading.rows[0][:1, :_PROBE_TOKENS]
    contents["round_trip"] = check_round_trip(run / ARTIFACT_FILE, probe)
