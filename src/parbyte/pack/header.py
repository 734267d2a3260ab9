"""The artifact's header as typed values, checked against the model that it describes."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table as read_settings
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.container import Container, Placement, check_tiling
from parbyte.pack.entries import TensorEntry, read_entry
from parbyte.pack.fields import (
    MOST_WEIGHTS,
    read_integer,
    read_list,
    read_placement,
    read_shape,
    read_table,
    read_text,
)
from parbyte.pack.prior import LARGEST_PRIOR
from parbyte.pack.tensors import Shape

# A trained model takes about a bit a weight at the very least; a bomb takes next to nothing.
_UNQUESTIONED_WEIGHTS = 2**26
_MOST_WEIGHTS_PER_BYTE = 512
_LARGEST_SIZE = 2**24  # of any one number in [model]; keeps products of two far below 2^63
_MOST_TOKENS = 2**16  # token ids are uint16
_LARGEST_TOKENIZER = 2**24
_MOST_CORRECTED = 0.125  # share of all weights; a recipe corrects a tenth at most
_MOST_SMALL_ELEMENTS = 2**24
_KEYS = ("meta", "model", "predict", "small", "tensors", "tokenizer")
_PRIOR = "prior"  # only where training text is stored


@dataclass(frozen=True)
class Header:
    """Everything an artifact says about itself."""

    model: ModelConfig
    tokenizer_kind: str
    tokenizer_bytes: int
    tokenizer: Placement
    predict: dict[str, Any]
    meta: dict[str, Any]
    tensors: tuple[TensorEntry, ...]
    small_shapes: dict[str, Shape]
    small: Placement
    prior_tokens: int = 0
    prior: Placement | None = None


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the shape of every parameter of a model, in order, without allocating any."""
    with torch.device("meta"):
        model = GPT(config, seed=None)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def parse_header(container: Container) -> Header:
    """Check and type a container's header.

    Raises ArtifactError unless the model's numbers are in range, every parameter of the model
    occurs once and in its shape, and the streams tile the payload.
    """
    keys = (*_KEYS, _PRIOR) if _PRIOR in container.header else _KEYS
    table = read_table(container.header, "header", keys)
    tokenizer = read_table(table["tokenizer"], "tokenizer", ("bytes", "kind", "stream"))
    small = read_table(table["small"], "small", ("stream", "tensors"))
    prior = read_table(table[_PRIOR], _PRIOR, ("stream", "tokens")) if _PRIOR in table else None
    header = Header(
        model=_model(table["model"]),
        tokenizer_kind=read_text(tokenizer["kind"], "tokenizer.kind"),
        tokenizer_bytes=read_integer(tokenizer["bytes"], "tokenizer.bytes", _LARGEST_TOKENIZER),
        tokenizer=read_placement(tokenizer["stream"], "tokenizer"),
        predict=read_table(table["predict"], "predict"),
        meta=read_table(table["meta"], "meta"),
        tensors=tuple(read_entry(item) for item in read_list(table["tensors"], "tensors")),
        small_shapes=_small_shapes(small["tensors"]),
        small=read_placement(small["stream"], "small"),
        prior_tokens=read_integer(prior["tokens"], "prior.tokens", LARGEST_PRIOR) if prior else 0,
        prior=read_placement(prior["stream"], _PRIOR) if prior else None,
    )
    check_tiling(_placements(header), len(container.payload))
    _check_tensors(header, len(container.payload))
    return header


def _placements(header: Header) -> list[Placement]:
    placements = [header.tokenizer, header.small]
    placements += [] if header.prior is None else [header.prior]
    for entry in header.tensors:
        placements += entry.placements()
    return placements


def _check_tensors(header: Header, payload_bytes: int) -> None:
    """Compare names and shapes with what the model's own constructor would make."""
    declared = [(entry.name, entry.shape) for entry in header.tensors]
    declared += list(header.small_shapes.items())
    # The model has no fewer parameters than layers: a short table cannot order a deep model.
    if header.model.num_layers > len(declared):
        raise ArtifactError("is damaged: fewer tensors than layers")
    expected = expected_shapes(header.model)
    num_weights = sum(math.prod(shape) for shape in expected.values())
    credible = max(_UNQUESTIONED_WEIGHTS, _MOST_WEIGHTS_PER_BYTE * payload_bytes)
    if num_weights > min(credible, MOST_WEIGHTS):
        raise ArtifactError(
            f"declares a model of {num_weights:,} weights in {payload_bytes:,} bytes: not credible"
        )
    corrections = sum(entry.sparse.count for entry in header.tensors if entry.sparse)
    if corrections > _MOST_CORRECTED * num_weights:
        raise ArtifactError(f"declares {corrections:,} corrections of single weights: not credible")
    seen: set[str] = set()
    for name, shape in declared:
        if name in seen:
            raise ArtifactError(f"is damaged: tensor '{name[:60]}' occurs twice")
        seen.add(name)
        if expected.get(name) != shape:
            what = "is unknown" if name not in expected else f"has no shape {shape}"
            raise ArtifactError(f"is damaged: tensor '{name[:60]}' of its model {what}")
    missing = [name for name in expected if name not in seen]
    if missing:
        raise ArtifactError(f"is damaged: tensor '{missing[0]}' is missing")


def _model(value: Any) -> ModelConfig:
    table = read_table(value, "model")
    for key, number in table.items():
        if isinstance(number, int) and abs(number) > _LARGEST_SIZE:
            raise ArtifactError(f"declares an impossible model: {key[:40]!r} is {number}")
    try:
        config = read_settings(ModelConfig, table, where="header", section="model")
    except RecipeError as error:
        reason = "".join(c if c.isprintable() else "?" for c in str(error))
        raise ArtifactError(f"declares an impossible model: {reason[:300]}") from None
    if not 1 <= config.vocab_size <= _MOST_TOKENS:
        raise ArtifactError(f"declares an impossible vocabulary of {config.vocab_size:,} tokens")
    return config


def _small_shapes(value: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for item in read_list(value, "small.tensors"):
        pair = read_list(item, "small.tensors[]")
        if len(pair) != 2:
            raise ArtifactError("is damaged: 'small.tensors[]' is no pair of name and shape")
        name = read_text(pair[0], "small.tensors[]")
        if name in shapes:
            raise ArtifactError(f"is damaged: tensor '{name[:60]}' occurs twice")
        shapes[name] = read_shape(pair[1])
    if sum(math.prod(shape) for shape in shapes.values()) > _MOST_SMALL_ELEMENTS:
        raise ArtifactError("is damaged: its small tensors are not small")
    return shapes
