"""pack.fit: never over the cap, and little of it unused."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from parbyte.base.errors import CapError, RecipeError
from parbyte.base.log import Console
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, inspect_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.quant.calibration import TrainingText
from parbyte.quant.config import QuantConfig
from parbyte.quant.heal import Batches
from parbyte.quant.rounder import Training
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.config import TextConfig
from parbyte.text.prepare import prepare

Weights = dict[str, torch.Tensor]
FIT = PackConfig(fit=True, coders=("zstd",))
"""The quickest coder: which one it is matters to no test but that of large caps."""


def fitted(
    weights: Weights,
    model_config: ModelConfig,
    quant: QuantConfig,
    cap_bytes: int,
    pack: PackConfig = FIT,
) -> bytes:
    return build_artifact(weights, model_config, ByteTokenizer(), {}, quant, pack, cap_bytes, {})


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
    unfitted = fitted(weights, model_config, quant, 10**6, replace(FIT, fit=False))
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


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("text")
    generator = np.random.default_rng(0)
    lines = [bytes(generator.integers(97, 123, 60).astype(np.uint8)) for _ in range(200)]
    (folder / "corpus.txt").write_bytes(b"\n\n".join(lines))
    config = TextConfig(
        corpus=str(folder / "corpus.txt"), documents="paragraphs", tokenizer="bytes"
    )
    prepare(config, folder / "data", Console(quiet=True))
    batches = Batches(batch_tokens=256, seq_len=32, seed=0)
    return Training(TrainingText(folder / "data"), batches, Console(quiet=True))


def learned(
    weights: Weights, model_config: ModelConfig, training: Training, **settings: object
) -> bytes:
    quant = QuantConfig(**settings)  # type: ignore[arg-type]
    tokenizer = ByteTokenizer()
    return build_artifact(
        weights, model_config, tokenizer, {}, quant, FIT, 12_000, {}, None, training
    )


LEARNED = [
    {"method": "gptq", "calibration_tokens": 2_000},
    {"method": "gptq", "calibration_tokens": 2_000, "damping": 1.0},
    {"method": "gptq", "calibration_tokens": 2_000, "act_order": False},
    {"method": "gptq", "calibration_tokens": 2_000, "calibration": "self"},
    {"method": "gptq", "calibration_tokens": 2_000, "calibration": "random"},
    {"method": "gptq", "calibration_tokens": 500},
    {"allocation": "sensitivity", "calibration_tokens": 2_000},
    {"rate_weight": 0.1},
    {"group": 16},
    {"grid": "e8"},
    {"grid": "e8", "method": "gptq", "calibration_tokens": 2_000},
    {"clip_std_mlp": 30.0},
    {"clip_hessian": 0.2, "calibration_tokens": 2_000},
    {"refit_scales": True},
    {"awq_columns": 8, "calibration_tokens": 2_000},
    {"awq_columns": 8, "awq_halvings": 1, "calibration_tokens": 2_000},
    {"lqer_rank": 1},
    {"lqer_rank": 2},
    {"lqer_rank": 2, "lqer_tensors": 1},
    {"lqer_rank": 2, "lqer_bits_left": 2},
    {"lqer_rank": 2, "lqer_bits_right": 3},
    {"sparse_share": 0.002},
    {"eggroll_trials": 20, "calibration_tokens": 500},
    {"heal_steps": 2},
    {"heal_steps": 2, "group": 16},
    {"heal_steps": 2, "heal_from": "text"},
    {"heal_steps": 2, "heal_lr": 1e-3},
]


@pytest.mark.slow
def test_every_way_of_learning_is_seen_in_the_file_fills_the_cap_and_repeats_itself(
    weights: Weights, model_config: ModelConfig, training: Training
) -> None:
    files = [learned(weights, model_config, training)]
    for settings in LEARNED:
        files.append(learned(weights, model_config, training, **settings))
        assert 0.99 * 12_000 <= len(files[-1]) <= 12_000, settings
    assert len(set(files)) == len(files)
    assert learned(weights, model_config, training, **LEARNED[-1]) == files[-1]


@pytest.mark.parametrize("settings", [{"method": "gptq"}, {"heal_steps": 1}])
def test_what_learns_from_text_is_refused_without_any(
    settings: dict[str, object], weights: Weights, model_config: ModelConfig
) -> None:
    quant = QuantConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="training text"):
        fitted(weights, model_config, quant, 12_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cap_bytes", "model_dim"),
    [(250_000, 128), (1_000_000, 256)],
)
def test_large_caps_are_filled_within_a_thousandth(cap_bytes: int, model_dim: int) -> None:
    config = ModelConfig(
        vocab_size=257,
        bos_id=256,
        num_layers=4,
        model_dim=model_dim,
        num_heads=4,
        mlp_dim=4 * model_dim,
    )
    generator = torch.Generator().manual_seed(0)
    model = GPT(config, seed=0)
    noisy = {
        name: parameter.detach() + 0.02 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in model.named_parameters()
    }
    size = len(fitted(noisy, config, QuantConfig(), cap_bytes, replace(FIT, coders=("range",))))
    assert 0.999 * cap_bytes <= size <= cap_bytes


def test_an_impossible_cap_names_the_smallest_possible_size(
    weights: Weights, model_config: ModelConfig
) -> None:
    with pytest.raises(CapError, match=r"smallest possible is ([\d,]+) bytes") as caught:
        fitted(weights, model_config, QuantConfig(), 2_500)
    named = re.search(r"possible is ([\d,]+)", str(caught.value))
    assert named is not None
    smallest = int(named[1].replace(",", ""))
    assert len(fitted(weights, model_config, QuantConfig(), smallest + 8)) <= smallest + 8
