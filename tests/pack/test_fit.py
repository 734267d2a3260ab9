"""pack.fit: never over the cap, and little of it unused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.base.errors import CapError
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import build_artifact, inspect_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

Weights = dict[str, torch.Tensor]
FIT = PackConfig(fit=True, coders=("range",))


def fitted(
    weights: Weights, model_config: ModelConfig, quant: QuantConfig, cap_bytes: int
) -> bytes:
    return build_artifact(weights, model_config, ByteTokenizer(), {}, quant, FIT, cap_bytes, {})


@pytest.mark.parametrize("cap_bytes", [7_000, 10_000, 13_000, 16_000])
def test_std_steps_fill_the_cap_from_both_sides(
    cap_bytes: int, weights: Weights, model_config: ModelConfig
) -> None:
    size = len(fitted(weights, model_config, QuantConfig(), cap_bytes))
    assert 0.995 * cap_bytes <= size <= cap_bytes


def test_a_larger_cap_buys_a_smaller_error(
    weights: Weights, model_config: ModelConfig, tmp_path: Path
) -> None:
    bits = []
    for cap_bytes in (8_000, 12_000, 16_000):
        path = tmp_path / f"{cap_bytes}.parbyte"
        path.write_bytes(fitted(weights, model_config, QuantConfig(), cap_bytes))
        rows = inspect_artifact(path)["tensors"]
        bits.append(next(r["bits_per_weight"] for r in rows if r["name"] == "embed.table"))
    assert bits == sorted(bits)
    assert bits[-1] > bits[0] + 1


def test_steps_stop_getting_finer_where_weights_would_be_clipped(
    weights: Weights, model_config: ModelConfig
) -> None:
    size = len(fitted(weights, model_config, QuantConfig(), 10**6))
    assert size < 40_000
    assert len(fitted(weights, model_config, QuantConfig(), 2 * 10**6)) == size


@pytest.mark.parametrize("clip", ["max", "search"])
@pytest.mark.parametrize("cap_bytes", [7_000, 9_000, 12_000])
def test_other_rules_lower_bits_until_it_fits(
    clip: str, cap_bytes: int, weights: Weights, model_config: ModelConfig
) -> None:
    quant = QuantConfig(clip=clip, bits_embed=16)
    data = fitted(weights, model_config, quant, cap_bytes)
    assert 0.8 * cap_bytes <= len(data) <= cap_bytes


def test_a_plan_that_fits_already_is_left_alone(
    weights: Weights, model_config: ModelConfig
) -> None:
    quant = QuantConfig(clip="max", bits_mlp=5)
    unfitted = build_artifact(
        weights,
        model_config,
        ByteTokenizer(),
        {},
        quant,
        PackConfig(coders=("range",)),
        10**6,
        {},
    )
    assert fitted(weights, model_config, quant, 10**6) == unfitted


@pytest.mark.parametrize("clip", ["std", "max"])
@pytest.mark.parametrize("cap_bytes", [0, 1_000, 2_500])
def test_a_cap_below_the_coarsest_grid_is_refused_in_one_line(
    clip: str, cap_bytes: int, weights: Weights, model_config: ModelConfig
) -> None:
    with pytest.raises(CapError, match=r"cap [\d,]+: over by [\d,]+ .*smaller") as caught:
        fitted(weights, model_config, QuantConfig(clip=clip), cap_bytes)
    assert "\n" not in str(caught.value)
    assert sum(caught.value.parts.values()) > cap_bytes


def test_float16_everywhere_falls_back_to_lower_bits(
    weights: Weights, model_config: ModelConfig
) -> None:
    roles = ("embed", "table", "attn", "mlp", "proj")
    quant = QuantConfig(**{f"bits_{role}": 16 for role in roles})
    assert len(fitted(weights, model_config, quant, 15_000)) <= 15_000


def test_counts_of_tokens_move_bytes_to_frequent_rows_and_the_cap_still_holds(
    weights: Weights, model_config: ModelConfig, tmp_path: Path
) -> None:
    counts = np.geomspace(1, 10**6, 257).astype(np.int64)
    plain = tmp_path / "plain.parbyte"
    counted = tmp_path / "counted.parbyte"
    plain.write_bytes(fitted(weights, model_config, QuantConfig(), 12_000))
    counted.write_bytes(
        build_artifact(
            weights, model_config, ByteTokenizer(), {}, QuantConfig(), FIT, 12_000, {}, counts
        )
    )
    assert 0.995 * 12_000 <= counted.stat().st_size <= 12_000
    table = weights["embed.table"]
    errors = {
        path: (load_artifact(path).model.embed.table - table).square().mean(1)
        for path in (plain, counted)
    }
    assert float(errors[counted][-64:].mean()) < 0.6 * float(errors[plain][-64:].mean())
    assert float(errors[counted][:64].mean()) > float(errors[plain][:64].mean())
