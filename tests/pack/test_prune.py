"""pack.prune: as few of the cheapest +-1 as will do, and never over the cap."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.base.errors import CapError, RecipeError
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.pack.fit import Draft
from parbyte.pack.prune import prune_to_cap
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes
from parbyte.quant.quantize import Quantized
from parbyte.recipe import load_recipe
from parbyte.text.byte_tokenizer import ByteTokenizer

Weights = dict[str, torch.Tensor]


def ones_left(quantized: Mapping[str, Quantized]) -> int:
    return sum(int((q.codes.abs() == 1).sum()) for q in quantized.values() if isinstance(q, Codes))


def draft_of(quantized: Mapping[str, Quantized]) -> Draft:
    """A file whose every +-1 takes a byte, on top of a hundred."""
    size = 100 + ones_left(quantized)
    return Draft(bytes(size), {"mlp": size}, {})


def test_the_cheapest_go_first_and_no_more_than_needed() -> None:
    generator = np.random.default_rng(0)
    quantized: dict[str, Quantized] = {}
    for name in ("a", "b"):
        codes = torch.from_numpy(generator.integers(-2, 3, (30, 16)).astype(np.int8))
        scale = torch.from_numpy(np.exp(generator.normal(size=30)).astype(np.float16))
        quantized[name] = Codes(codes, scale, 4)
    quantized["c"] = torch.ones(3).half()
    inputs = {"a": torch.linspace(0.1, 5.0, 16, dtype=torch.float64)}
    costs, keys = [], []
    for name in ("a", "b"):
        item = quantized[name]
        assert isinstance(item, Codes)
        for r, c in torch.nonzero(item.codes.abs() == 1).tolist():
            weight = float(inputs[name][c]) if name in inputs else 1.0
            costs.append(float(item.scale[r]) ** 2 * weight)
            keys.append((name, r, c))
    cap = 100 + len(costs) - 77
    seen: list[Mapping[str, Quantized]] = []

    def write(pruned: Mapping[str, Quantized]) -> Draft:
        seen.append(pruned)
        return draft_of(pruned)

    best = prune_to_cap(write, quantized, inputs, draft_of(quantized), cap)
    assert len(best.data) == cap
    final = next(item for item in seen if len(draft_of(item).data) == cap)
    gone = set()
    for name in ("a", "b"):
        before, after = quantized[name], final[name]
        assert isinstance(before, Codes) and isinstance(after, Codes)
        changed = torch.nonzero(before.codes != after.codes).tolist()
        gone |= {(name, r, c) for r, c in changed}
        assert all(int(after.codes[r, c]) == 0 for r, c in changed)
    cheapest = sorted(range(len(costs)), key=lambda i: costs[i])[:77]
    assert gone == {keys[i] for i in cheapest}


def build(weights: Weights, config: ModelConfig, pack: PackConfig, cap_bytes: int) -> bytes:
    return build_artifact(weights, config, ByteTokenizer(), {}, QuantConfig(), pack, cap_bytes, {})


def test_a_file_over_its_cap_is_trimmed_under_it_and_one_that_fits_is_left_alone(
    weights: Weights, model_config: ModelConfig
) -> None:
    plain = build(weights, model_config, PackConfig(coders=("range",)), 10**6)
    pack = PackConfig(coders=("range",), prune=True)
    assert build(weights, model_config, pack, len(plain)) == plain
    cap = len(plain) - 400
    assert 0.997 * cap <= len(build(weights, model_config, pack, cap)) <= cap


def test_what_cannot_be_trimmed_is_refused_with_the_smallest_size(
    weights: Weights, model_config: ModelConfig
) -> None:
    with pytest.raises(CapError, match="smallest possible"):
        build(weights, model_config, PackConfig(coders=("range",), prune=True), 4_000)


def test_pruning_is_refused_where_it_has_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'pack\.prune'"):
        PackConfig(fit=True, prune=True)
    settings = ["pack.fit=false", "pack.prune=true", "quant.rate_weight=0"]
    assert load_recipe("tiny", settings).pack.prune
    with pytest.raises(RecipeError, match=r"'pack\.prune'.*'quant\.grid'"):
        load_recipe("tiny", [*settings, "quant.grid=e8"])
