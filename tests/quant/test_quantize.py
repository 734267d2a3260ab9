"""quant.quantize: which tensor becomes what."""

import pytest
import torch

from parbyte.base.errors import RecipeError
from parbyte.base.settings import read_table
from parbyte.model.roles import Role
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes, dequantize
from parbyte.quant.quantize import (
    Knowledge,
    dequantize_weights,
    quantize_weights,
    with_coarser_steps,
)
from parbyte.quant.rounding import max_scale

ROLES = {
    "embed.table": Role.EMBED,
    "bigram.table": Role.TABLE,
    "attn.q": Role.ATTN,
    "mlp.up": Role.MLP,
    "bigram.proj": Role.PROJ,
    "resid_mix": Role.SCALAR,
    "attn_scale": Role.SCALAR,
    "logit_bias": Role.SCALAR,
    "tiny.q": Role.ATTN,
}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = dict.fromkeys(ROLES, (64, 32))
    shapes |= {"resid_mix": (2, 600), "attn_scale": (64,), "logit_bias": (4096,), "tiny.q": (4, 8)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_bits_follow_the_role_and_small_tensors_are_float16() -> None:
    config = QuantConfig(bits_embed=7, bits_table=5, bits_attn=6, bits_mlp=4, bits_proj=3)
    quantized = quantize_weights(weights(), ROLES, config)
    bits = {n: item.bits if isinstance(item, Codes) else 16 for n, item in quantized.items()}
    assert bits == {
        "embed.table": 7,
        "bigram.table": 5,
        "attn.q": 6,
        "mlp.up": 4,
        "bigram.proj": 3,
        "resid_mix": 16,
        "attn_scale": 16,
        "logit_bias": 8,  # an element per token: too long for float16
        "tiny.q": 16,
    }


def test_sixteen_bits_mean_float16() -> None:
    quantized = quantize_weights(weights(), ROLES, QuantConfig(bits_embed=16))
    embed = quantized["embed.table"]
    assert isinstance(embed, torch.Tensor)
    assert torch.equal(embed, weights()["embed.table"].half())


def test_dequantized_weights_are_float32_of_the_same_shapes() -> None:
    quantized = quantize_weights(weights(), ROLES, QuantConfig())
    restored = dequantize_weights(quantized)
    assert {n: t.shape for n, t in restored.items()} == {n: t.shape for n, t in weights().items()}
    assert all(tensor.dtype == torch.float32 for tensor in restored.values())
    embed = quantized["embed.table"]
    assert isinstance(embed, Codes)
    assert torch.equal(restored["embed.table"], dequantize(embed))


def test_more_bits_leave_less_error_under_every_rule() -> None:
    for clip in ("max", "search"):
        errors = []
        for bits in (2, 3, 4, 6, 8):
            config = QuantConfig(clip=clip, bits_mlp=bits)
            restored = dequantize_weights(quantize_weights(weights(), ROLES, config))
            errors.append(float((restored["mlp.up"] - weights()["mlp.up"]).square().mean()))
        assert errors == sorted(errors, reverse=True)


def test_a_coarser_step_is_coarser_for_all_matrices() -> None:
    config = QuantConfig(scale_digits=10)
    fine = quantize_weights(weights(), ROLES, config)
    coarse = quantize_weights(weights(), ROLES, with_coarser_steps(config, 2.0))
    for name in ("embed.table", "mlp.up"):
        a, b = fine[name], coarse[name]
        assert isinstance(a, Codes) and isinstance(b, Codes)
        assert torch.allclose(b.scale.float(), 2 * a.scale.float(), rtol=2e-3)


def test_weights_are_left_alone() -> None:
    before, after = weights(), weights()
    quantize_weights(after, ROLES, QuantConfig(clip="search"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_model_is_refused_by_name(bad: float) -> None:
    broken = weights()
    broken["mlp.up"][3, 4] = bad
    with pytest.raises(RecipeError, match=r"'mlp\.up'.*diverged"):
        quantize_weights(broken, ROLES, QuantConfig())


def test_weights_beyond_float16_are_clipped_not_infinite() -> None:
    large = weights()
    large["attn_scale"][0] = 1e6
    restored = dequantize_weights(quantize_weights(large, ROLES, QuantConfig()))
    assert float(restored["attn_scale"][0]) == 65504.0


@pytest.mark.parametrize("bits", [0, 9, 12, 17])
def test_impossible_bits_are_refused_with_the_key(bits: int) -> None:
    with pytest.raises(RecipeError, match=r"quant\.bits_mlp"):
        read_table(QuantConfig, {"bits_mlp": bits}, where="recipe.toml", section="quant")


def test_counts_of_tokens_narrow_the_steps_of_frequent_rows_of_the_embedding_only() -> None:
    counts = torch.arange(64) ** 3
    plain = quantize_weights(weights(), ROLES, QuantConfig())
    counted = quantize_weights(weights(), ROLES, QuantConfig(), Knowledge(token_counts=counts))
    ratio = {}
    for name in ("embed.table", "mlp.up", "attn.q"):
        a, b = plain[name], counted[name]
        assert isinstance(a, Codes) and isinstance(b, Codes)
        ratio[name] = b.scale.float() / a.scale.float()
    assert float(ratio["embed.table"][0]) > 2 > 0.9 > float(ratio["embed.table"][63])
    assert bool((ratio["mlp.up"] == 1).all() and (ratio["attn.q"] == 1).all())
    known = Knowledge(token_counts=counts)
    other_rule = quantize_weights(weights(), ROLES, QuantConfig(clip="max"), known)["embed.table"]
    assert isinstance(other_rule, Codes)
    assert torch.equal(
        other_rule.scale, max_scale(weights()["embed.table"], 8, QuantConfig().scale_digits)
    )
