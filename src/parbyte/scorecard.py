"""The scorecard: one JSON object with every number of a run, each with its kind and conditions.

It is a pure function of the recipe and the book of stages. What is certified is what the proof
decoded: sizes and hashes of artifact and bitstream are those of the files that it was given.
"""

from typing import Any

from parbyte.base.files import write_json
from parbyte.base.units import coded_bits_per_byte
from parbyte.run_folder import (
    ARTIFACT_FILE,
    DATA_FOLDER,
    HELDOUT_FILE,
    SCORECARD_FILE,
    Records,
    Run,
)

MAX_GAP_PERCENT = 0.2
MIN_GAP_PERCENT = -0.01
"""Bounds on coded - measured: more is a slow coder, less is a measured number that is no bound."""
_HEAD_BYTES = 128
"""What heads and the lanes' ends may cost, however short the text is."""

_EXPORT_TOLERANCE = 1e-4
"""FineWeb's validation text exists in exports that differ by a few bytes."""

STAGES_SHOWN = ("data", "train", "pack", "score", "compress", "prove")


def write_scorecard(run: Run, records: Records) -> dict[str, Any]:
    """Write the scorecard of a run whose proof was attempted, and return it."""
    scorecard = build_scorecard(run, records)
    write_json(run.path(SCORECARD_FILE), scorecard)
    return scorecard


def build_scorecard(run: Run, records: Records) -> dict[str, Any]:
    """Return everything that a reader of the score must know, as plain JSON values."""
    data, train, proof = (records.figures(name) for name in ("data", "train", "prove"))
    measured, coded = records.figures("score"), records.figures("compress")
    text_bytes = data["text_bytes"]
    coded_bpb = coded_bits_per_byte(proof["bitstream_bytes"], text_bytes)
    checks = _checks(run, records, coded_bpb)
    certified = checks["decoded_equal"]["passed"] and checks["fits_cap"]["passed"]
    recipe = run.recipe
    return {
        "certified": certified,
        "within_track": certified and all(check["passed"] for check in checks.values()),
        "reason": proof["reason"],
        "coded_bpb": coded_bpb,
        "measured_bpb": measured["measured_bpb"],
        "text_bytes": text_bytes,
        "text_tokens": measured["tokens"],
        "bitstream_bytes": proof["bitstream_bytes"],
        "artifact_bytes": proof["artifact_bytes"],
        "cap_bytes": recipe.track.cap_bytes,
        "artifact_parts": records.figures("pack")["artifact_parts"],
        "recipe": recipe.name,
        "track": recipe.track.name,
        "corpus": data["corpus"],
        "tokenizer": data["tokenizer"],
        "vocab_size": data["vocab_size"],
        "dev_in_training": data["dev_in_training"],
        "seed": recipe.train.seed,
        "lanes": coded["lanes"],
        "decodes": coded.get("decodes", ""),
        "parameters": train["parameters"],
        "steps": train["steps"],
        "tokens": train["tokens"],
        "tokens_per_second": train["tokens_per_second"],
        "train_seconds": train["seconds"] + records.figures("pack").get("learning_seconds", 0.0),
        "dev_bpb": train["dev_bpb"],
        "measured_tokens_per_second": measured["tokens_per_second"],
        "encode_tokens_per_second": coded["tokens_per_second"],
        "decode_tokens_per_second": _rate(coded["tokens"], proof["decode_seconds"]),
        "stage_seconds": _stage_figures(records, "seconds"),
        "peak_memory_bytes": max(_stage_figures(records, "peak_memory_bytes").values()),
        "checks": checks,
        "hashes": _hashes(run, records),
        "hardware": train["hardware"],
        "versions": train["versions"],
        "notes": data["notes"],
    }


def _checks(run: Run, records: Records, coded_bpb: float) -> dict[str, dict[str, Any]]:
    track, proof = run.recipe.track, records.figures("prove")
    measured_bpb = records.figures("score")["measured_bpb"]
    gap = 100.0 * (coded_bpb / measured_bpb - 1.0) if measured_bpb else 0.0
    measured_bytes = measured_bpb * proof["text_bytes"] / 8.0
    highest = max(MAX_GAP_PERCENT, 100.0 * _HEAD_BYTES / max(1.0, measured_bytes))
    train = records.figures("train")
    # The step that is under way when the clock runs out may end.
    train_limit_s = track.train_seconds + train["seconds"] / max(1, train["steps"])
    # Its own clock leaves compilation out, as training's does; older runs have the whole stage's.
    score_s = records.figures("score").get("seconds", records.finished("score").seconds)
    return {
        "decoded_equal": {
            "passed": proof["proven"],
            "text_sha256": proof["text_sha256"],
            "text_bytes": proof["text_bytes"],
        },
        "fits_cap": _at_most(proof["artifact_bytes"], track.cap_bytes),
        "coded_minus_measured_percent": {
            "passed": MIN_GAP_PERCENT <= gap <= highest,
            "value": gap,
            "low": MIN_GAP_PERCENT,
            "high": highest,
        },
        "train_seconds": _at_most(
            train["seconds"] + records.figures("pack").get("learning_seconds", 0.0), train_limit_s
        ),
        "score_seconds": _at_most(score_s, track.score_seconds),
        "decode_seconds": _at_most(proof["seconds"], track.decode_seconds),
        "track_corpus": _track_text(run, records),
    }


def _track_text(run: Run, records: Records) -> dict[str, Any]:
    """Check that the held-out text is the track's, whatever the corpus is called here."""
    track, num_bytes = run.recipe.track, records.figures("data")["text_bytes"]
    sha256 = records.finished("data").outputs[HELDOUT_FILE]
    close = abs(num_bytes - track.text_bytes) <= _EXPORT_TOLERANCE * track.text_bytes
    is_text = sha256 == track.text_sha256 or (not track.text_sha256 and close)
    is_named = run.recipe.text.corpus == track.corpus
    return {
        "passed": is_text if track.text_sha256 or track.text_bytes else is_named,
        "value": run.recipe.text.corpus,
        "want": track.corpus,
    }


def _at_most(value: float, limit: float) -> dict[str, Any]:
    return {"passed": value <= limit, "value": value, "limit": limit}


def _stage_figures(records: Records, name: str) -> dict[str, Any]:
    known = {stage: records.get(stage) for stage in STAGES_SHOWN}
    return {stage: getattr(record, name) for stage, record in known.items() if record}


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 else None


def _hashes(run: Run, records: Records) -> dict[str, str]:
    data, proof = records.finished("data").outputs, records.figures("prove")
    return {
        "recipe": run.recipe.sha256(),
        "data": data[f"{DATA_FOLDER}/manifest.json"],
        "tokenizer": data[f"{DATA_FOLDER}/tokenizer.bin"],
        "text": data[HELDOUT_FILE],
        "artifact": proof["artifact_sha256"],
        "packed_artifact": records.finished("pack").outputs[ARTIFACT_FILE],
        "bitstream": proof["bitstream_sha256"],
    }
