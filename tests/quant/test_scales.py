"""quant.scales and what quantize_weights makes of the keys of steps, against slow loops."""

import dataclasses

import numpy as np
import pytest
import torch

from parbyte.base.errors import RecipeError
from parbyte.base.settings import read_table
from parbyte.model.roles import Role
from parbyte.quant.config import ROLES, QuantConfig
from parbyte.quant.gptq import Factor, factorize
from parbyte.quant.grid import Codes, Fine, dequantize
from parbyte.quant.quantize import Knowledge, quantize_weights, with_coarser_steps
from parbyte.quant.rounding import mean_scale, refit_scale
from parbyte.quant.scales import clip_std_of


def weight(rows: int = 24, columns: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(torch.randn(columns, generator=generator))
    return torch.randn(rows, columns, generator=generator) * spread


def inputs(columns: int = 32) -> Factor:
    generator = torch.Generator().manual_seed(1)
    diagonal = torch.exp(2 * torch.randn(columns, generator=generator, dtype=torch.float64))
    return factorize(diagonal.diag(), 0.01, act_order=True, warn=pytest.fail)


def quantized(config: QuantConfig, known: Knowledge | None = None) -> Codes:
    item = quantize_weights({"mlp.up": weight()}, {"mlp.up": Role.MLP}, config, known)["mlp.up"]
    assert isinstance(item, Codes)
    return item


def bits(number: int) -> dict[str, int]:
    return {f"bits_{role}": number for role in ROLES}


def test_each_group_of_columns_has_the_step_of_its_own_deviation_and_errs_less() -> None:
    config = QuantConfig(clip="max", group=8, scale_digits=10, bits_mlp=4)
    item = quantized(config)
    w = weight().double().numpy()
    for r in range(24):
        for g in range(4):
            largest = np.abs(w[r, 8 * g : 8 * g + 8]).max()
            assert float(item.scale[r, g]) == pytest.approx(largest / 7, rel=2**-10)
    errors = [
        float((dequantize(quantized(dataclasses.replace(config, group=g))) - weight()).norm())
        for g in (0, 8)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_a_group_that_divides_no_row_is_refused_by_key_and_tensor() -> None:
    with pytest.raises(RecipeError, match=r"'quant\.group'.*'mlp\.up' has 32"):
        quantized(QuantConfig(group=5))
    with pytest.raises(RecipeError, match=r"'quant\.grid' takes 3.*'mlp\.up' has 32"):
        quantized(QuantConfig(grid="codebook", clip="max", codebook_dim=3, **bits(2)))


def test_each_role_may_have_a_k_of_its_own() -> None:
    config = QuantConfig(clip_std_embed=10.0, clip_std_matrix=20.0, clip_std_mlp=5.0)
    found = {role: clip_std_of(role, config) for role in Role if role is not Role.SCALAR}
    assert found == {
        Role.EMBED: 10.0,
        Role.TABLE: 10.0,
        Role.ATTN: 20.0,
        Role.MLP: 5.0,
        Role.PROJ: 20.0,
    }
    coarser = with_coarser_steps(config, 3.0)
    assert clip_std_of(Role.MLP, coarser) == 15.0
    assert clip_std_of(Role.ATTN, coarser) == 60.0


def test_rows_that_matter_more_than_the_mean_clip_later_by_their_share() -> None:
    config = QuantConfig(clip_hessian=0.5, scale_digits=10, clip_std_matrix=200.0)
    plain = quantized(dataclasses.replace(config, clip_hessian=0.0)).scale.double()
    got = quantized(config, Knowledge(factors={"mlp.up": inputs()})).scale.double()
    power = (weight().double() ** 2 * inputs().hessian_CC.diagonal()).sum(1)
    expected = plain * (1 + 0.5 * (power / power.mean() - 1))
    assert torch.allclose(got, expected, rtol=2**-8)


def test_binary_codes_are_signs_times_the_mean_size() -> None:
    config = QuantConfig(clip="mean", scale_digits=10, **bits(1))
    item = quantized(config)
    assert set(item.codes.unique().tolist()) == {-1, 1}
    expected = weight().sign() * weight().abs().mean(1, keepdim=True)
    assert torch.allclose(dequantize(item), expected, rtol=2**-10)


def test_ternary_codes_are_rounded_at_half_the_mean_and_refitting_undoes_the_shrinkage() -> None:
    config = QuantConfig(clip="mean", scale_digits=10, **bits(2))
    item, refitted = quantized(config), quantized(dataclasses.replace(config, refit_scales=True))
    mean = weight().abs().mean(1, keepdim=True)
    assert torch.allclose(item.scale.float(), mean[:, 0], rtol=2**-10)
    expected = torch.clamp((weight() / item.scale.float()[:, None]).round(), -1, 1)
    assert torch.equal(item.codes.float(), expected)
    errors = [float((dequantize(i) - weight()).square().sum()) for i in (item, refitted)]
    assert errors[1] < errors[0]


def test_a_refitted_scale_is_the_best_of_all_that_a_search_tries() -> None:
    w = weight(6, 16)
    importance = torch.linspace(0.1, 3.0, 16, dtype=torch.float64)
    scale = mean_scale(w, 10)
    points = torch.clamp((w / scale.float()[:, None]).round(), -1, 1)
    got = refit_scale(w, points, importance, scale, 10)
    for r in range(6):
        tries = np.geomspace(0.3, 12.0, 4000) * float(scale[r])
        missed = w[r].double().numpy() - points[r].double().numpy() * tries[:, None]
        costs = (importance.numpy() * missed**2).sum(1)
        assert float(got[r]) == pytest.approx(tries[costs.argmin()], rel=3e-3)


def test_a_refit_never_raises_the_error_of_a_row() -> None:
    w = weight()
    for digits in (0, 2, 10):
        scale = mean_scale(w, digits)
        points = torch.clamp((w / scale.float()[:, None]).round(), -1, 1)
        ones = torch.ones(32, dtype=torch.float64)
        new = refit_scale(w, points, ones, scale, digits)
        errors = [(w - points * s.float()[:, None]).square().sum(1) for s in (scale, new)]
        assert bool((errors[1] <= errors[0] * (1 + 1e-5)).all())


def test_the_columns_that_matter_most_get_finer_steps() -> None:
    known = Knowledge(factors={"mlp.up": inputs()})
    item = quantized(QuantConfig(awq_columns=8, awq_halvings=2, clip_std_matrix=100.0), known)
    matters = inputs().hessian_CC.diagonal().sqrt() * weight().double().abs().mean(0)
    best = int(matters.reshape(4, 8).sum(1).argmax()) * 8
    assert item.fine == Fine(best, best + 8, 2)
    error = (dequantize(item) - weight()).square().mean(0)
    plain = (dequantize(quantized(QuantConfig(clip_std_matrix=100.0))) - weight()).square().mean(0)
    finer = error[best : best + 8] / plain[best : best + 8]
    assert float(finer.mean()) == pytest.approx(1 / 16, rel=0.3)
    others = torch.ones(32, dtype=torch.bool)
    others[best : best + 8] = False
    assert torch.equal(error[others], plain[others])


REFUSED = [
    ({"clip": "mean"}, "clip"),
    ({**bits(1)}, "clip"),
    ({"grid": "codebook", **bits(4)}, "clip"),
    ({"clip": "max", "clip_hessian": 0.1}, "clip_hessian"),
    ({"clip": "max", "allocation": "sensitivity"}, "allocation"),
    ({"clip": "mean", "grid": "e8", **bits(1)}, "grid"),
    ({"grid": "codebook", "clip": "max", **bits(5)}, "codebook_dim"),
    ({"grid": "e8", "awq_columns": 8}, "awq_columns"),
    ({"clip": "max", "awq_columns": 8, **bits(7)}, "awq_columns"),
    ({"grid": "e8", "rate_weight": 0.1}, "rate_weight"),
    ({"clip": "mean", "rate_weight": 0.1, **bits(1)}, "rate_weight"),
    ({"grid": "e8", "eggroll_trials": 3}, "eggroll_trials"),
    ({"grid": "e8", "heal_steps": 3}, "heal_steps"),
    ({"lqer_rank": 2, "heal_seconds": 3.0}, "heal_seconds"),
    ({"sparse_share": 0.01, "heal_steps": 3}, "heal_steps"),
    ({"awq_columns": 8, "heal_steps": 3}, "heal_steps"),
    ({"eggroll_trials": 8, "heal_steps": 3}, "heal_steps"),
    ({"refit_scales": True, "heal_steps": 3}, "heal_steps"),
    ({"heal_steps": 3, "heal_seconds": 3.0}, "heal_seconds"),
]


@pytest.mark.parametrize(("settings", "key"), REFUSED)
def test_keys_that_cannot_go_together_are_refused_by_name(
    settings: dict[str, object], key: str
) -> None:
    with pytest.raises(RecipeError, match=rf"'quant\.{key}'") as caught:
        read_table(QuantConfig, settings, where="recipe.toml", section="quant")
    assert "\n" not in str(caught.value)
