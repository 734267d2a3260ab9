"""What quantisation-aware training sees is what the packer makes, and gradients say so."""

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.quant.config import QuantConfig
from parbyte.quant.quantize import Knowledge, dequantize_weights, quantize_weights
from parbyte.quant.view import rounding_on_grid, soft_round, with_noise
from parbyte.train.rounding import rounded

CLIPS = [QuantConfig(clip=clip, bits_mlp=4, bits_attn=5) for clip in ("max", "search", "std")]


def random_model(config: ModelConfig) -> GPT:
    model = GPT(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(257, (3, 17), generator=torch.Generator().manual_seed(4))
    return tokens[:, :-1], tokens[:, 1:]


def gradients(model: GPT) -> dict[str, Tensor]:
    model.zero_grad()
    model(*batch()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", CLIPS, ids=lambda config: config.clip)
def test_the_network_sees_the_packers_weights_to_the_bit(
    model_config: ModelConfig, config: QuantConfig
) -> None:
    model = random_model(model_config)
    exact = {name: p.detach().clone() for name, p in model.named_parameters()}
    counts = torch.randint(0, 1000, (257,), generator=torch.Generator().manual_seed(5))
    roles = parameter_roles(model)
    known = Knowledge(token_counts=counts)
    packed = dequantize_weights(quantize_weights(exact, roles, config, known))
    rounding = rounding_on_grid(roles, config, counts)
    twin = GPT(model_config, seed=None)
    seen_names = rounding.see(exact, "straight", 0.0).keys()
    twin.load_state_dict({n: packed[n] if n in seen_names else exact[n] for n in exact})
    with torch.no_grad(), rounded(dict(model.named_parameters()), rounding, "straight", 0.0):
        seen = model(*batch())
    assert torch.equal(seen, twin(*batch()).detach())
    assert {"embed.table", "blocks.0.mlp.up", "blocks.1.attn.q"} <= seen_names
    assert "blocks.0.mlp_scale" not in seen_names
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, exact[name]), "exact again after the block"


def test_the_straight_gradient_is_that_of_the_rounded_weights(model_config: ModelConfig) -> None:
    model, config = random_model(model_config), CLIPS[1]
    roles = parameter_roles(model)
    rounding = rounding_on_grid(roles, config, None)
    twin = random_model(model_config)
    with torch.no_grad():
        exact = {name: p.detach() for name, p in twin.named_parameters()}
        for name, view in rounding.see(exact, "straight", 0.0).items():
            exact[name].copy_(view.value)
    with rounded(dict(model.named_parameters()), rounding, "straight", 0.0):
        straight = gradients(model)
    wanted = gradients(twin)
    assert straight.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(straight[name], wanted[name])] == []


def test_nothing_to_round_is_one_clear_line(model_config: ModelConfig) -> None:
    model = random_model(model_config)
    exact = {name: p.detach() for name, p in model.named_parameters() if p.ndim < 2}
    rounding = rounding_on_grid(parameter_roles(model), CLIPS[0], None)
    with pytest.raises(RecipeError, match=r"'train\.qat' has nothing to round"):
        rounding.see(exact, "straight", 0.0)


def slow_soft(weight: Tensor, scale: Tensor, limit: int, sharpness: float) -> Tensor:
    """Soft rounding from its formula, differentiable, float64."""
    steps = weight / scale
    rest = steps - steps.detach().floor() - 0.5
    soft = steps.detach().floor() + 0.5
    soft = soft + torch.tanh(sharpness * rest) / (2 * torch.tanh(torch.tensor(sharpness / 2)))
    return soft.clamp(-limit, limit) * scale


@pytest.mark.parametrize("hardness", [0.0, 0.4, 1.0])
def test_soft_rounding_and_its_slope_equal_autograd_in_float64(hardness: float) -> None:
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(5, 40, generator=generator)
    scale = torch.tensor([0.25, 0.5, 0.125, 1.0, 0.03125], dtype=torch.float16)
    sharpness = 1.0 + 15.0 * hardness
    value, slope = soft_round(weight, scale, 4, sharpness)
    exact = weight.double().requires_grad_()
    slow = slow_soft(exact, scale.double()[:, None], 7, sharpness)
    (wanted,) = torch.autograd.grad(slow.sum(), exact)
    torch.testing.assert_close(value.double(), slow.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(slope.double(), wanted, atol=1e-4, rtol=0)
    assert (slope[4] == 0).any(), "some weights lie outside the grid"


def test_soft_rounding_goes_from_nothing_to_everything() -> None:
    weight, scale = torch.tensor([[0.2, 0.7, 1.3, -0.4]]), torch.tensor([1.0], dtype=torch.float16)
    assert torch.allclose(soft_round(weight, scale, 4, 1e-3)[0], weight, atol=1e-4)
    assert torch.allclose(soft_round(weight, scale, 4, 200.0)[0], weight.round(), atol=1e-4)


def test_noise_is_uniform_over_a_step_about_the_clipped_weight() -> None:
    torch.manual_seed(7)
    weight = torch.tensor([[0.3] * 20_000, [9.0] * 20_000])
    scale = torch.tensor([0.5, 0.25], dtype=torch.float16)
    noise = with_noise(weight, scale, 4) - torch.tensor([[0.3], [7 * 0.25]])
    for row, step in zip(noise, (0.5, 0.25), strict=True):
        assert row.abs().max() <= step / 2 + 1e-6
        assert row.mean().item() == pytest.approx(0.0, abs=0.01 * step)
        assert row.std().item() == pytest.approx(step / 12**0.5, rel=0.02)


def test_slopes_reach_the_gradients(model_config: ModelConfig) -> None:
    model = random_model(model_config)
    rounding = rounding_on_grid(parameter_roles(model), CLIPS[0], None)
    parameters = dict(model.named_parameters())
    exact = {name: p.detach().clone() for name, p in parameters.items()}
    with rounded(parameters, rounding, "soft", 0.5):
        inside = gradients(model)
    views = rounding.see(exact, "soft", 0.5)
    for name, parameter in parameters.items():
        slope = views[name].slope if name in views else torch.ones(())
        assert slope is not None and parameter.grad is not None
        assert torch.equal(parameter.grad, inside[name] * slope)
