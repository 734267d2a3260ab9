"""Model, tokenizer and predictor settings to one file under a cap, and back from nothing but it."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.errors import ArtifactError, CapError
from parbyte.base.machine import num_cores
from parbyte.base.settings import to_table
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, role_of
from parbyte.pack.accounting import cap_error, count_parts, tensor_rows
from parbyte.pack.config import PackConfig
from parbyte.pack.container import (
    Container,
    PayloadWriter,
    read_container,
    read_file,
    write_container,
)
from parbyte.pack.entries import TensorEntry, restore_codes, write_entry
from parbyte.pack.fit import Assemble, Draft, fit_rate, fit_to_cap, too_small
from parbyte.pack.header import Header, expected_shapes, parse_header
from parbyte.pack.prior import expand_prior, shrink_prior
from parbyte.pack.prune import prune_to_cap
from parbyte.pack.statistics import code_figures
from parbyte.pack.streams import expand, shrink
from parbyte.pack.tensors import (
    CodeStreams,
    Layout,
    expand_floats,
    shrink_codes,
    shrink_floats,
)
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes, dequantize_into_
from parbyte.quant.quantize import Quantized, is_small
from parbyte.quant.rounder import Rounder, Training
from parbyte.text.tokenizer import Tokenizer, load_tokenizer

_LOWER_THE_RATE = (
    "set 'pack.fit = true' or 'pack.prune = true', raise 'quant.clip_std_*' or lower "
    "'quant.bits_*', or choose a smaller model"
)
_ABOVE_THE_CAP = 1.01


@dataclass
class Artifact:
    """Everything that one file holds: a quantised model in eval mode on the CPU, and the rest.

    sha256: of the whole file, as `sha256sum` prints it. parts: bytes by part. header: plain values.
    prior_N: tokens of training text for the stages that count, uint16[N]; N may be 0.
    """

    model: GPT
    tokenizer: Tokenizer
    predict: dict[str, Any]
    sha256: str
    parts: dict[str, int]
    header: dict[str, Any]
    prior_N: NDArray[np.uint16]


def build_artifact(
    weights: Mapping[str, Tensor],
    model_config: ModelConfig,
    tokenizer: Tokenizer,
    predict_settings: dict[str, Any],
    quant: QuantConfig,
    pack: PackConfig,
    cap_bytes: int,
    meta: dict[str, Any],
    token_counts: NDArray[np.int64] | None = None,
    training: Training | None = None,
    prior_N: NDArray[np.uint16] | None = None,
) -> bytes:
    """Return the artifact's bytes, at most `cap_bytes` of them; equal input gives equal bytes.

    meta: plain JSON values about the run, kept in the header and counted like everything else.
    token_counts: int64[V], how often each token occurs in the training text: frequent tokens then
    get finer steps. The counts are not stored.
    training: the text that GPTQ and healing learn from; may be None where the recipe asks for
    neither. Healing by the clock (quant.heal_seconds) makes the bytes depend on the machine.
    prior_N: tokens of training text that are stored, see pack.prior.
    Raises CapError, which carries the table of parts, if it does not fit; ArtifactError if the
    weights are not those of such a model; RecipeError if a weight is not finite.
    """
    roles = _roles(weights, model_config)
    ordered = {name: weights[name].detach().to("cpu", torch.float32) for name in roles}
    counts = None if token_counts is None else torch.from_numpy(token_counts)
    writer = _Writer(model_config, tokenizer, predict_settings, pack, meta, prior_N)
    rounder = Rounder(ordered, roles, model_config, counts, training, quant)

    def assemble(config: QuantConfig, layouts: Mapping[str, Layout]) -> Draft:
        return writer.write(rounder.quantize(config), layouts)

    if quant.heals:
        return _heal_and_fit(rounder, writer, assemble, quant, pack, cap_bytes).data
    if not pack.fit:
        return _finish(rounder, writer, quant, pack, cap_bytes).data
    draft, chosen = fit_to_cap(assemble, ordered, roles, quant, cap_bytes)
    if quant.eggroll_trials:
        draft = _finish(rounder, writer, chosen, pack, cap_bytes, draft.layouts)
    return draft.data


def _heal_and_fit(
    rounder: Rounder,
    writer: "_Writer",
    assemble: Assemble,
    quant: QuantConfig,
    pack: PackConfig,
    cap_bytes: int,
) -> Draft:
    """Choose the grids, train on through them, and round what healing left of the weights."""
    # The price of bits is paid when healing begins; what it makes of the weights is taken as it is.
    if not pack.fit:
        rounder.heal_(quant)
        return _finish(rounder, writer, replace(quant, rate_weight=0.0), pack, cap_bytes)
    # A little too fine: what is over after healing is trimmed where rounding down costs least.
    above = round(cap_bytes * _ABOVE_THE_CAP)
    try:
        draft, chosen = fit_to_cap(assemble, rounder.weights, rounder.roles, quant, above)
    except CapError as error:
        raise too_small(error.parts, cap_bytes) from None
    rounder.heal_(chosen)
    return fit_rate(assemble, replace(chosen, rate_weight=0.0), draft.layouts, cap_bytes)


def _finish(
    rounder: Rounder,
    writer: "_Writer",
    quant: QuantConfig,
    pack: PackConfig,
    cap_bytes: int,
    layouts: Mapping[str, Layout] | None = None,
) -> Draft:
    """Quantise on chosen grids, try changes of codes, and trim what is over the cap."""
    quantized = rounder.quantize(quant)
    if quant.eggroll_trials:
        quantized = rounder.roll(quantized, quant)
    draft = writer.write(quantized, layouts or {})
    if len(draft.data) <= cap_bytes:
        return draft
    if not (pack.fit or pack.prune):
        raise cap_error(draft.parts, cap_bytes, _LOWER_THE_RATE)

    def write(pruned: Mapping[str, Quantized]) -> Draft:
        return writer.write(pruned, draft.layouts)

    return prune_to_cap(write, quantized, rounder.inputs(), draft, cap_bytes)


def with_predict(data: bytes, predict: dict[str, Any], cap_bytes: int) -> bytes:
    """Return a sound artifact's bytes with other predictor settings; no weight changes.

    Raises CapError if they no longer fit.
    """
    container = read_container(data)
    changed = write_container({**container.header, "predict": predict}, bytes(container.payload))
    if len(changed) > cap_bytes:
        hint = "leave more room or fit fewer numbers of 'predict.stack'"
        raise cap_error(parts_of(changed), cap_bytes, hint)
    return changed


def parts_of(data: bytes) -> dict[str, int]:
    """Return where a sound artifact's bytes are, by role."""
    container = read_container(data)
    return count_parts(container, parse_header(container))


def load_artifact(path: Path) -> Artifact:
    """Restore model, tokenizer and settings from a file.

    Raises ArtifactError for anything but a sound artifact, before memory is taken for it.
    """
    data = read_file(path)
    try:
        return read_artifact(data)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' {error}") from None


def read_artifact(data: bytes) -> Artifact:
    """Restore model, tokenizer and settings from a file's bytes; raises as load_artifact does."""
    container = read_container(data)
    header = parse_header(container)
    tokenizer = _load_tokenizer(container, header)
    return Artifact(
        model=_load_model(container, header),
        tokenizer=tokenizer,
        predict=header.predict,
        sha256=hashlib.sha256(data).hexdigest(),
        parts=count_parts(container, header),
        header=container.header,
        prior_N=_load_prior(container, header),
    )


def inspect_artifact(path: Path) -> dict[str, Any]:
    """Return what a file says about itself, and where its bytes are, tensor by tensor.

    Raises ArtifactError for anything but a sound artifact.
    """
    data = read_file(path)
    try:
        container = read_container(data)
        header = parse_header(container)
        rows = tensor_rows(header)
        for row, entry in zip(rows, header.tensors, strict=True):
            if entry.scale is not None:
                row |= code_figures(restore_codes(container, entry), entry.values.length)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' {error}") from None
    return {
        "path": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parts": count_parts(container, header),
        "tensors": rows,
        "model": container.header["model"],
        "tokenizer": header.tokenizer_kind,
        "predict": header.predict,
        "meta": header.meta,
    }


class _Writer:
    """What all drafts of one artifact share; the streams that do not depend on the rate once."""

    def __init__(
        self,
        model_config: ModelConfig,
        tokenizer: Tokenizer,
        predict_settings: dict[str, Any],
        pack: PackConfig,
        meta: dict[str, Any],
        prior_N: NDArray[np.uint16] | None,
    ) -> None:
        blob = tokenizer.to_blob()
        self._coders = pack.coders
        self._tokenizer = shrink(blob, pack.coders)
        self._plain: dict[str, Any] = {
            "model": to_table(model_config),
            "predict": predict_settings,
            "meta": meta,
        }
        self._tokenizer_row = {"kind": tokenizer.kind, "bytes": len(blob)}
        self._num_prior = 0 if prior_N is None else len(prior_N)
        self._prior = None if prior_N is None else shrink_prior(prior_N, pack.coders)

    def write(self, quantized: Mapping[str, Quantized], layouts: Mapping[str, Layout]) -> Draft:
        """Return one draft; a tensor named in `layouts` is coded in that way only."""
        payload = PayloadWriter()
        tokenizer_row = {**self._tokenizer_row, "stream": payload.add(self._tokenizer)}
        rows, chosen = [], {}
        small: dict[str, Tensor] = {}
        shrunk = _shrink_all(quantized, self._coders, layouts)
        for name, item in quantized.items():
            if isinstance(item, Codes):
                streams = shrunk[name]
                chosen[name] = streams.layout
                rows.append({"name": name, **write_entry(item, streams, self._coders, payload)})
            elif is_small(role_of(name), tuple(item.shape)):
                small[name] = item
            else:
                values = payload.add(shrink_floats([item], self._coders))
                rows.append({"name": name, "shape": list(item.shape), "bits": 16, "values": values})
        small_row = {
            "tensors": [[name, list(item.shape)] for name, item in small.items()],
            "stream": payload.add(shrink_floats(list(small.values()), self._coders)),
        }
        header = {**self._plain, "tokenizer": tokenizer_row, "tensors": rows, "small": small_row}
        if self._prior is not None and self._num_prior:
            header["prior"] = {"tokens": self._num_prior, "stream": payload.add(self._prior)}
        data = write_container(json.loads(json.dumps(header)), payload.payload())
        container = read_container(data)
        return Draft(data, count_parts(container, parse_header(container)), chosen)


def _shrink_all(
    quantized: Mapping[str, Quantized], coders: Sequence[str], layouts: Mapping[str, Layout]
) -> dict[str, CodeStreams]:
    """Code every tensor that has codes, several at once: the coders hold no lock."""
    coded = {name: item for name, item in quantized.items() if isinstance(item, Codes)}

    def shrink_one(name: str) -> CodeStreams:
        return shrink_codes(coded[name], coders, layouts.get(name))

    with ThreadPoolExecutor(num_cores()) as pool:
        return dict(zip(coded, pool.map(shrink_one, coded), strict=True))


def _roles(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Role]:
    """Return every parameter's role in the model's order, once the weights are known to be its."""
    expected = expected_shapes(config)
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if found != expected:
        odd = sorted(found.items() ^ expected.items())[0][0]
        raise ArtifactError(
            f"the weights belong to another model: '{odd}' is {found.get(odd, 'missing')} there, "
            f"{expected.get(odd, 'unknown')} in [model]; train again or restore the recipe"
        )
    return {name: role_of(name) for name in expected}


def _load_tokenizer(container: Container, header: Header) -> Tokenizer:
    blob = expand(container.stream(header.tokenizer), header.tokenizer_bytes)
    tokenizer = load_tokenizer(header.tokenizer_kind, blob)
    if (tokenizer.vocab_size, tokenizer.bos_id) != (header.model.vocab_size, header.model.bos_id):
        raise ArtifactError("is damaged: its tokenizer and its model disagree on the vocabulary")
    return tokenizer


def _load_prior(container: Container, header: Header) -> NDArray[np.uint16]:
    if header.prior is None:
        return np.empty(0, np.uint16)
    stream = container.stream(header.prior)
    return expand_prior(stream, header.prior_tokens, header.model.vocab_size)


def _allocate(config: ModelConfig) -> GPT:
    try:
        return GPT(config, seed=None).eval().requires_grad_(False)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        num_bytes = 4 * sum(math.prod(shape) for shape in expected_shapes(config).values())
        raise ArtifactError(
            f"holds a model of {num_bytes:,} bytes: more memory than is free here"
        ) from None


def _load_model(container: Container, header: Header) -> GPT:
    """Allocate the checked model and fill it tensor by tensor: codes times scales in float32."""
    model = _allocate(header.model)
    parameters = dict(model.named_parameters())

    def fill_(entry: TensorEntry) -> None:
        if entry.scale is None:
            values = container.stream(entry.values)
            parameters[entry.name].copy_(expand_floats(values, [entry.shape])[0])
            return
        with torch.no_grad():
            dequantize_into_(parameters[entry.name], restore_codes(container, entry))

    with ThreadPoolExecutor(num_cores()) as pool:
        list(pool.map(fill_, header.tensors))
    small = expand_floats(container.stream(header.small), list(header.small_shapes.values()))
    for name, value in zip(header.small_shapes, small, strict=True):
        parameters[name].copy_(value)
    return model
