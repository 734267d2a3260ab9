"""pack.artifact: build, load, inspect; what is loaded is what was quantised."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from parbyte.base.errors import ArtifactError, CapError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.pack.accounting import PARTS
from parbyte.pack.artifact import build_artifact, inspect_artifact, load_artifact, with_predict
from parbyte.pack.config import PackConfig
from parbyte.quant.config import ROLES, QuantConfig
from parbyte.quant.quantize import dequantize_weights, quantize_weights
from parbyte.text.byte_tokenizer import ByteTokenizer

Weights = dict[str, torch.Tensor]


def bits(number: int) -> dict[str, int]:
    return {f"bits_{role}": number for role in ROLES}


CONFIGS = [
    QuantConfig(),
    QuantConfig(clip="search", bits_embed=5, bits_mlp=2, bits_attn=4, bits_table=3),
    QuantConfig(clip="max", bits_embed=16, bits_proj=16),
    QuantConfig(group=8, lqer_rank=2, sparse_share=0.01),
    QuantConfig(grid="e8", refit_scales=True),
    QuantConfig(grid="codebook", clip="search", **bits(3)),
    QuantConfig(grid="codebook", clip="search", codebook_dim=1, **bits(3)),
    QuantConfig(clip="mean", group=16, **bits(1)),
    QuantConfig(clip="mean", **{**bits(2), "bits_mlp": 1}),
]


def build(
    weights: Weights,
    model_config: ModelConfig,
    quant: QuantConfig | None = None,
    pack: PackConfig | None = None,
    cap_bytes: int = 10**6,
) -> bytes:
    return build_artifact(
        weights,
        model_config,
        ByteTokenizer(),
        {"window": 64, "stride": 32},
        quant or QuantConfig(),
        pack or PackConfig(coders=("range", "brotli")),
        cap_bytes,
        {"seed": 7},
    )


@pytest.mark.parametrize("quant", CONFIGS)
def test_loaded_logits_are_bit_equal_to_the_quantised_model_in_memory(
    quant: QuantConfig, weights: Weights, model_config: ModelConfig, tmp_path: Path
) -> None:
    path = tmp_path / "model.parbyte"
    path.write_bytes(build(weights, model_config, quant))
    model = GPT(model_config, seed=None)
    quantized = quantize_weights(weights, parameter_roles(model), quant)
    model.load_state_dict(dequantize_weights(quantized))
    tokens = torch.randint(0, 257, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.logits(model.hidden(tokens))
        got = load_artifact(path).model
        assert torch.equal(got.logits(got.hidden(tokens)), expected)


def test_a_loaded_artifact_is_ready_to_predict(artifact_path: Path) -> None:
    artifact = load_artifact(artifact_path)
    assert not artifact.model.training
    assert all(
        (p.dtype, p.device.type, p.requires_grad) == (torch.float32, "cpu", False)
        for p in artifact.model.parameters()
    )
    assert artifact.predict == {"window": 64}
    assert artifact.header["meta"] == {"seed": 3}
    assert artifact.tokenizer.decode(artifact.tokenizer.encode(b"light\xff")) == b"light\xff"
    assert artifact.sha256 == hashlib.sha256(artifact_path.read_bytes()).hexdigest()


def test_other_predictor_settings_change_no_weight(artifact_path: Path) -> None:
    data, before = artifact_path.read_bytes(), load_artifact(artifact_path)
    assert with_predict(data, {"window": 64}, 10**6) == data
    artifact_path.write_bytes(with_predict(data, {"window": 32, "stride": 8}, 10**6))
    after = load_artifact(artifact_path)
    assert after.predict == {"window": 32, "stride": 8}
    for name, weight in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], weight)
    with pytest.raises(CapError, match="cap"):
        with_predict(data, {"window": 32}, len(data) // 2)


@pytest.mark.parametrize("pack", [PackConfig(), PackConfig(fit=True)])
def test_equal_input_gives_equal_bytes(
    pack: PackConfig, weights: Weights, model_config: ModelConfig
) -> None:
    first = build(weights, model_config, pack=pack, cap_bytes=12_000)
    shuffled = dict(reversed([(name, tensor.clone()) for name, tensor in weights.items()]))
    assert build(shuffled, model_config, pack=pack, cap_bytes=12_000) == first


def test_parts_sum_to_the_files_size(artifact_path: Path) -> None:
    report = inspect_artifact(artifact_path)
    assert tuple(report["parts"]) == PARTS
    assert sum(report["parts"].values()) == report["bytes"] == artifact_path.stat().st_size
    assert report["parts"] == load_artifact(artifact_path).parts
    assert report["parts"]["code"] == 0
    for part in ("header", "embed", "tables", "attn", "mlp", "proj", "small"):
        assert report["parts"][part] > 0
    json.dumps(report, allow_nan=False)


def test_each_tensors_bytes_and_bits_a_weight_are_shown(artifact_path: Path) -> None:
    report = inspect_artifact(artifact_path)
    rows = {row["name"]: row for row in report["tensors"]}
    embed = rows["embed.table"]
    assert embed["bytes"] == report["parts"]["embed"]
    assert embed["bits_per_weight"] == pytest.approx(8 * embed["bytes"] / (257 * 32), abs=1e-4)
    assert 2.5 < embed["bits_per_weight"] < 4.5
    assert report["meta"] == {"seed": 3}
    assert report["tokenizer"] == "bytes"


def test_the_header_of_a_small_model_takes_less_than_1500_bytes(artifact_path: Path) -> None:
    assert inspect_artifact(artifact_path)["parts"]["header"] < 1500


def test_over_the_cap_is_one_line_with_the_largest_parts_and_a_remedy(
    weights: Weights, model_config: ModelConfig
) -> None:
    size = len(build(weights, model_config))
    assert len(build(weights, model_config, cap_bytes=size)) == size
    with pytest.raises(CapError) as caught:
        build(weights, model_config, cap_bytes=size - 1234)
    message = str(caught.value)
    assert "\n" not in message
    assert f"artifact is {size:,} bytes, cap {size - 1234:,}: over by 1,234" in message
    assert "embed" in message and "pack.fit" in message
    assert sum(caught.value.parts.values()) == size


def test_weights_of_another_model_are_refused(weights: Weights, model_config: ModelConfig) -> None:
    other = dataclasses.replace(model_config, mlp_dim=64)
    with pytest.raises(ArtifactError, match=r"blocks\.0\.mlp\.\w+.*\[model\]"):
        build(weights, other)
    fewer = {name: tensor for name, tensor in weights.items() if name != "logit_bias"}
    with pytest.raises(ArtifactError, match="'logit_bias' is missing"):
        build(fewer, model_config)


def test_an_untrained_model_of_zeros_packs_and_loads(
    model_config: ModelConfig, tmp_path: Path
) -> None:
    zeros = {n: torch.zeros_like(p) for n, p in GPT(model_config, seed=None).named_parameters()}
    path = tmp_path / "zeros.parbyte"
    path.write_bytes(build(zeros, model_config))
    assert not any(bool(p.any()) for p in load_artifact(path).model.parameters())


def test_every_grid_is_seen_in_the_file(weights: Weights, model_config: ModelConfig) -> None:
    files = [build(weights, model_config, quant) for quant in CONFIGS]
    assert len(set(files)) == len(files)


def test_repairs_and_books_are_counted_with_their_tensor(
    weights: Weights, model_config: ModelConfig, tmp_path: Path
) -> None:
    path = tmp_path / "model.parbyte"
    quant = QuantConfig(clip="max", grid="codebook", lqer_rank=2, sparse_share=0.01, **bits(3))
    path.write_bytes(build(weights, model_config, quant))
    report = inspect_artifact(path)
    assert sum(report["parts"].values()) == report["bytes"] == path.stat().st_size
    rows = report["tensors"]
    assert sum(row["repair_bytes"] > 0 for row in rows) >= 3
    assert {row["grid"] for row in rows} == {"codebook"}
