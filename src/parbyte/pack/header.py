"""The artifact's header as typed values, checked against the model that it describes."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.settings import read_table
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.container import Container, Placement, check_tiling
from parbyte.pack.tensors import Shape
from parbyte.quant.config import FLOAT_BITS

_MOST_WEIGHTS = 2**31
# A trained model takes about a bit a weight at the very least; a bomb takes next to nothing.
_UNQUESTIONED_WEIGHTS = 2**26
_MOST_WEIGHTS_PER_BYTE = 512
_LARGEST_SIZE = 2**24  # of any one number in [model]; keeps products of two far below 2^63
_MOST_TOKENS = 2**16  # token ids are uint16
_LARGEST_TOKENIZER = 2**24
_MOST_SMALL_ELEMENTS = 2**24
_KEYS = ("meta", "model", "predict", "small", "tensors", "tokenizer")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor with streams of its own; 16 bits: float16 values and no scales."""

    name: str
    shape: Shape
    bits: int
    transposed: bool
    values: Placement
    scale: Placement | None


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
    table = _table(container.header, "header", _KEYS)
    tokenizer = _table(table["tokenizer"], "tokenizer", ("bytes", "kind", "stream"))
    small = _table(table["small"], "small", ("stream", "tensors"))
    header = Header(
        model=_model(table["model"]),
        tokenizer_kind=_text(tokenizer["kind"], "tokenizer.kind"),
        tokenizer_bytes=_integer(tokenizer["bytes"], "tokenizer.bytes", _LARGEST_TOKENIZER),
        tokenizer=_placement(tokenizer["stream"], "tokenizer"),
        predict=_table(table["predict"], "predict"),
        meta=_table(table["meta"], "meta"),
        tensors=tuple(_entry(item) for item in _list(table["tensors"], "tensors")),
        small_shapes=_small_shapes(small["tensors"]),
        small=_placement(small["stream"], "small"),
    )
    check_tiling(_placements(header), len(container.payload))
    _check_tensors(header, len(container.payload))
    return header


def _placements(header: Header) -> list[Placement]:
    placements = [header.tokenizer, header.small]
    for entry in header.tensors:
        placements += [entry.values] if entry.scale is None else [entry.values, entry.scale]
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
    if num_weights > min(credible, _MOST_WEIGHTS):
        raise ArtifactError(
            f"declares a model of {num_weights:,} weights in {payload_bytes:,} bytes: not credible"
        )
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
    table = _table(value, "model")
    for key, number in table.items():
        if isinstance(number, int) and abs(number) > _LARGEST_SIZE:
            raise ArtifactError(f"declares an impossible model: {key[:40]!r} is {number}")
    try:
        config = read_table(ModelConfig, table, where="header", section="model")
    except RecipeError as error:
        reason = "".join(c if c.isprintable() else "?" for c in str(error))
        raise ArtifactError(f"declares an impossible model: {reason[:300]}") from None
    if not 1 <= config.vocab_size <= _MOST_TOKENS:
        raise ArtifactError(f"declares an impossible vocabulary of {config.vocab_size:,} tokens")
    return config


def _entry(value: Any) -> TensorEntry:
    table = _table(value, "tensor")
    name, shape = _text(table.get("name"), "tensor.name"), _shape(table.get("shape"))
    bits = _integer(table.get("bits"), "tensor.bits", FLOAT_BITS)
    is_float = bits == FLOAT_BITS
    _table(value, "tensor", ("bits", "name", "shape", "values") + (() if is_float else _CODE_KEYS))
    if not (is_float or 2 <= bits <= 8):
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has {bits} bits")
    if not shape:
        raise ArtifactError(f"is damaged: tensor '{name[:60]}' has no dimension")
    return TensorEntry(
        name=name,
        shape=shape,
        bits=bits,
        transposed=not is_float and _integer(table["transposed"], "transposed", 1) == 1,
        values=_placement(table["values"], name),
        scale=None if is_float else _placement(table["scale"], name),
    )


_CODE_KEYS = ("scale", "transposed")


def _small_shapes(value: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for item in _list(value, "small.tensors"):
        pair = _list(item, "small.tensors[]")
        if len(pair) != 2:
            raise ArtifactError("is damaged: 'small.tensors[]' is no pair of name and shape")
        name = _text(pair[0], "small.tensors[]")
        if name in shapes:
            raise ArtifactError(f"is damaged: tensor '{name[:60]}' occurs twice")
        shapes[name] = _shape(pair[1])
    if sum(math.prod(shape) for shape in shapes.values()) > _MOST_SMALL_ELEMENTS:
        raise ArtifactError("is damaged: its small tensors are not small")
    return shapes


def _placement(value: Any, what: str) -> Placement:
    items = _list(value, f"stream of {what[:60]}")
    if len(items) != 3:
        raise ArtifactError(f"is damaged: the stream of '{what[:60]}' has no coder, offset, length")
    return Placement(
        _text(items[0], "coder"),
        _integer(items[1], "offset", 2**33),
        _integer(items[2], "length", 2**33),
    )


def _shape(value: Any) -> Shape:
    sizes = [_integer(size, "shape", _MOST_WEIGHTS) for size in _list(value, "shape")]
    if len(sizes) > 8 or 0 in sizes or math.prod(sizes) > _MOST_WEIGHTS:
        raise ArtifactError(f"declares an impossible shape: {str(sizes)[:60]}")
    return tuple(sizes)


def _table(value: Any, what: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"is damaged: '{what}' in its header is no table")
    if keys is not None and sorted(value) != sorted(keys):
        raise ArtifactError(f"is damaged: '{what}' in its header must have {', '.join(keys)}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ArtifactError(f"is damaged: '{what}' in its header is no list")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise ArtifactError(f"is damaged: '{what}' in its header is no plain text")
    return value


def _integer(value: Any, what: str, high: int) -> int:
    if type(value) is not int or not 0 <= value <= high:
        raise ArtifactError(f"is damaged: '{what}' in its header is {str(value)[:40]}")
    return value
