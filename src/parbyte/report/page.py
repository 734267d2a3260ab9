"""One self-contained HTML page from a run folder: verdict, proof, figures, tables.

The same run folder gives the same page, byte for byte: no clock, no random ids.
"""

import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from parbyte.base.files import write_bytes
from parbyte.base.log import Console
from parbyte.report.baselines import MAX_TEXT_BYTES, Baseline, load_or_measure
from parbyte.report.evidence import Evidence, read_evidence, read_extract, read_heldout
from parbyte.report.figures import (
    Row,
    draw_comparison,
    draw_documents,
    draw_parts,
    draw_rate_distortion,
    draw_training,
)
from parbyte.report.rate_distortion import read_rate_distortion
from parbyte.report.verdict_part import show_verdict

REPORT_FILE = "report.html"
_NUM_EXTRACTS = 3
_MIN_EXTRACT_BYTES = 200
_CHECKS = {
    "decoded_equal": "A fresh process restored the text byte for byte",
    "fits_cap": "The artifact fits the cap",
    "coded_minus_measured_percent": "Coded agrees with measured",
    "train_seconds": "Training kept to its time",
    "score_seconds": "Scoring kept to its time",
    "decode_seconds": "Decoding kept to its time",
    "track_corpus": "The text is the track's",
}
_PARTS = {
    "embed": "token table",
    "tables": "bigram, value tables",
    "attn": "attention",
    "mlp": "MLP",
    "proj": "other matrices",
    "small": "vectors, gains",
    "prior": "training text",
}


def write_report(run_folder: Path, console: Console | None = None) -> Path:
    """Write the report of a run whose proof was attempted, and return its path.

    Measures the compressors it compares with, once; they are kept in RUN/baselines.json.
    Raises DataError naming the file of the run folder that is missing or damaged.
    """
    evidence = read_evidence(run_folder)
    baselines = load_or_measure(
        run_folder / "baselines.json",
        read_heldout(run_folder, MAX_TEXT_BYTES),
        lambda: _training_documents(run_folder / "data"),
        console or Console(quiet=True),
    )
    path = run_folder / REPORT_FILE
    write_bytes(path, render_page(evidence, baselines).encode())
    return path


def render_page(evidence: Evidence, baselines: Sequence[Baseline]) -> str:
    """Return the page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "bpb": lambda value: f"{value:.4f}",
        "seconds": lambda value: f"{value:,.1f} s",
        "mib": lambda value: f"{value / 2**20:,.0f} MiB",
        "gib": lambda value: f"{value / 2**30:,.1f} GiB",
        "percent": lambda value: f"{value:.1%}",
    }
    source = resources.files("parbyte.report").joinpath("page.html").read_text(encoding="utf-8")
    page = environment.from_string(source).render(_view(evidence, baselines))
    return page.rstrip() + "\n"


def comparison_rows(scorecard: Mapping[str, Any], baselines: Sequence[Baseline]) -> list[Row]:
    """Return the lines of the comparison: this run's coded and measured numbers, the others."""
    ours = [
        Row(
            name=f"parbyte, {kind}",
            bpb=bpb,
            compressed_bytes=num_bytes,
            shared_bytes=scorecard["artifact_bytes"],
            is_ours=True,
        )
        for kind, bpb, num_bytes in (
            (_bitstream_kind(scorecard), scorecard["coded_bpb"], scorecard["bitstream_bytes"]),
            ("measured", scorecard["measured_bpb"], None),
        )
    ]
    others = [
        Row(
            name=baseline.name,
            bpb=baseline.bpb,
            compressed_bytes=baseline.compressed_bytes,
            shared_bytes=baseline.shared_bytes,
        )
        for baseline in baselines
    ]
    return ours + others


def break_even_bytes(scorecard: Mapping[str, Any], baseline: Baseline) -> int | None:
    """Return from which length of text on, at these rates, the artifact has paid for itself.

    None if it never does.
    """
    gain = baseline.bpb - scorecard["coded_bpb"]
    if gain <= 0:
        return None
    return round(8 * (scorecard["artifact_bytes"] - baseline.shared_bytes) / gain)


def _bitstream_kind(scorecard: Mapping[str, Any]) -> str:
    """Return what kind of number the bitstream's length is: coded only if it was decoded back."""
    return "coded" if scorecard["checks"]["decoded_equal"]["passed"] else "not decoded back"


def _training_documents(data: Path) -> Iterator[bytes]:
    from parbyte.text.prepare import load_run_tokenizer, split_documents

    tokenizer = load_run_tokenizer(data)
    for ids in split_documents(data, "train", tokenizer):
        yield tokenizer.decode(ids)


def _view(evidence: Evidence, baselines: Sequence[Baseline]) -> dict[str, Any]:
    scorecard = evidence.scorecard
    alone = [baseline for baseline in baselines if not baseline.shared_bytes]
    best = min(alone, key=lambda baseline: baseline.bpb, default=None)
    documents = [(document.bytes, document.bpb) for document in evidence.documents]
    bytes_per_token = evidence.bytes_per_token
    rates = read_rate_distortion(evidence.folder)
    return {
        "card": scorecard,
        "kind": _bitstream_kind(scorecard),
        "is_decoded": scorecard["checks"]["decoded_equal"]["passed"],
        "corpus": Path(scorecard["corpus"]).name,
        "failed": [name for name, check in scorecard["checks"].items() if not check["passed"]],
        "checks": [_check_row(name, check) for name, check in scorecard["checks"].items()],
        "commands": _commands(evidence.folder),
        "baselines": sorted(baselines, key=lambda baseline: baseline.bpb),
        "best": best,
        "break_even": break_even_bytes(scorecard, best) if best else None,
        "is_cut": any(b.text_bytes < scorecard["text_bytes"] for b in baselines),
        "comparison": _figure(draw_comparison(comparison_rows(scorecard, baselines))),
        "parts": _figure(draw_parts(_named_parts(scorecard["artifact_parts"]))),
        "rates": _figure(draw_rate_distortion(rates)) if rates else None,
        "training": _figure(draw_training(evidence.curve, bytes_per_token))
        if evidence.curve
        else None,
        "bytes_per_token": bytes_per_token,
        "documents": _figure(draw_documents(documents)) if documents else None,
        "num_documents": len(documents),
        "extracts": _extracts(evidence),
        "stages": [
            (name, record.get("seconds", 0.0), record.get("peak_memory_bytes", 0))
            for name, record in evidence.stages.items()
            if name in scorecard["stage_seconds"]
        ],
        "heat": evidence.heat,
        "recipe": evidence.recipe,
        "is_portable": _is_portable(evidence.recipe),
        "sample": evidence.sample,
        "verdict": show_verdict(evidence.verdict) if evidence.verdict else None,
    }


def _is_portable(recipe: str) -> bool:
    return tomllib.loads(recipe).get("predict", {}).get("engine") == "portable"


def _named_parts(parts: Mapping[str, int]) -> dict[str, int]:
    return {_PARTS.get(name, name): num_bytes for name, num_bytes in parts.items() if num_bytes}


def _figure(svg: str) -> Any:
    # Drawn by us from numbers and escaped names: the only text that the template may not escape.
    from markupsafe import Markup

    return Markup(svg)


def _commands(folder: Path) -> list[tuple[str, str]]:
    # The page may be passed on; a path of the machine it was made on means nothing elsewhere.
    run = folder.name if folder.is_absolute() else str(folder)
    name = {file: shlex.quote(f"{run}/{file}") for file in ("model.parbyte", "heldout.pby")}
    text, restored = shlex.quote(f"{run}/data/heldout.txt"), "restored.txt"
    files = f"{name['model.parbyte']} {name['heldout.pby']}"
    return [
        ("decode in a fresh process and compare", f"parbyte prove {shlex.quote(run)}"),
        ("the same by hand", f"parbyte decompress {files} -o {restored}"),
        ("", f"cmp {restored} {text}"),
        ("the whole run again", f"parbyte run {shlex.quote(f'{run}/recipe.toml')} --out again"),
    ]


def _check_row(name: str, check: Mapping[str, Any]) -> dict[str, Any]:
    title = _CHECKS.get(name, name.replace("_", " "))
    return {"title": title, "passed": check["passed"], "figures": _check_figures(name, check)}


def _check_figures(name: str, check: Mapping[str, Any]) -> str:
    value = check.get("value")
    if "limit" in check and name.endswith("seconds"):
        return f"{value:,.1f} s of {check['limit']:,.1f} s"
    if "limit" in check:
        return f"{value:,} of {check['limit']:,} bytes"
    if "low" in check and "high" in check:
        return f"{value:+.3f} %, allowed {check['low']:+g} to {check['high']:+g} %"
    if "text_sha256" in check:
        return f"{check['text_bytes']:,} bytes, SHA-256 {check['text_sha256'][:16] or 'none'}"
    if "want" in check:
        name = Path(str(value)).name
        return name if check["passed"] else f"{name}, the track's is {check['want']}"
    rest = {key: item for key, item in check.items() if key != "passed"}
    return ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in rest.items())


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _extracts(evidence: Evidence) -> list[tuple[str, list[tuple[float, int, str]]]]:
    """Return the beginnings of the documents that cost least and most."""
    long = [d for d in evidence.documents if d.bytes >= _MIN_EXTRACT_BYTES]
    ordered = sorted(long, key=lambda document: document.bpb)
    if len(ordered) < 2 * _NUM_EXTRACTS:
        return []
    groups = {"easiest": ordered[:_NUM_EXTRACTS], "hardest": ordered[: -_NUM_EXTRACTS - 1 : -1]}
    return [
        (name, [(d.bpb, d.bytes, read_extract(evidence.folder, d)) for d in group])
        for name, group in groups.items()
    ]
