import math

import pytest
import torch
from torch import Tensor, nn

from parbyte.base.errors import RoleError
from parbyte.base.world import World
from parbyte.kernels.newton_schulz import MUON_QUINTIC, POLAR_EXPRESS
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles
from parbyte.train.config import TrainConfig
from parbyte.train.exchange import joint_norm
from parbyte.train.optim import build_optimizer, clip_


class Toy(nn.Module):
    """A table, three matrices (two of one shape, one tall) and a vector."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name, shape in SHAPES.items():
            weight = torch.randn(shape, generator=generator)
            self.register_parameter(name, nn.Parameter(weight))


SHAPES = {"table": (7, 4), "a": (4, 6), "b": (4, 6), "tall": (9, 3), "gate": (5,), "pairs": (3, 2)}
ROLES = {
    "table": Role.EMBED,
    "a": Role.ATTN,
    "b": Role.PROJ,
    "tall": Role.MLP,
    "gate": Role.SCALAR,
    "pairs": Role.TABLE,
}


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def move(config: TrainConfig, num_steps: int, *, scale: float = 1.0) -> dict[str, Tensor]:
    model = Toy()
    optimizer = build_optimizer(model, ROLES, config, World())
    for step in range(num_steps):
        for name, parameter in model.named_parameters():
            parameter.grad = gradients(step)[name] * scale
        optimizer.step_(0.5, 0.9)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def slow_orthogonalize(x_RC: Tensor, coefficients) -> Tensor:
    if x_RC.shape[0] > x_RC.shape[1]:
        return slow_orthogonalize(x_RC.T, coefficients).T
    x_RC = x_RC / (x_RC.square().sum().sqrt() + 1e-7)
    for a, b, c in coefficients:
        gram = x_RC @ x_RC.T
        x_RC = a * x_RC + b * gram @ x_RC + c * gram @ gram @ x_RC
    return x_RC


@pytest.mark.parametrize("row_normalize", [False, True])
@pytest.mark.parametrize(
    ("name", "coefficients"), [("muon", MUON_QUINTIC), ("polar", POLAR_EXPRESS)]
)
def test_matrices_move_as_the_float64_reference_says(
    name: str, coefficients, row_normalize: bool
) -> None:
    config = TrainConfig(
        matrix_lr=0.1, weight_decay=0.2, newton_schulz=name, row_normalize=row_normalize
    )
    moved = move(config, num_steps=4)
    for matrix in ("a", "b", "tall"):
        weight = dict(Toy().named_parameters())[matrix].detach().double()
        momentum = torch.zeros_like(weight)
        for step in range(4):
            grad = gradients(step)[matrix].double()
            momentum = 0.9 * momentum + grad
            update = grad + 0.9 * momentum
            if row_normalize:
                update = update / update.square().sum(1, keepdim=True).sqrt()
            num_rows, num_columns = weight.shape
            size = math.sqrt(max(1.0, num_rows / num_columns))
            lr = 0.5 * 0.1
            weight = weight * (1 - lr * 0.2)
            weight = weight - lr * size * slow_orthogonalize(update, coefficients)
        torch.testing.assert_close(moved[matrix].double(), weight, atol=1e-5, rtol=0)


def test_the_rest_moves_as_the_float64_reference_says() -> None:
    config = TrainConfig(
        embed_lr=0.3,
        table_lr=0.2,
        scalar_lr=0.1,
        embed_weight_decay=0.05,
        scalar_weight_decay=0.01,
        beta1=0.8,
        beta2=0.9,
    )
    moved = move(config, num_steps=5)
    plans = {"table": (0.3, 0.05), "pairs": (0.2, 0.05), "gate": (0.1, 0.01)}
    for name, (base_lr, decay) in plans.items():
        weight = dict(Toy().named_parameters())[name].detach().double()
        first, second, lr = torch.zeros_like(weight), torch.zeros_like(weight), 0.5 * base_lr
        for step in range(5):
            grad = gradients(step)[name].double()
            first = 0.8 * first + 0.2 * grad
            second = 0.9 * second + 0.1 * grad.square()
            scaled = (second / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8
            weight = weight * (1 - lr * decay) - lr * first / (1 - 0.8 ** (step + 1)) / scaled
        torch.testing.assert_close(moved[name].double(), weight, atol=1e-5, rtol=0)


def test_clipping_bounds_the_joint_norm_and_leaves_small_gradients_alone() -> None:
    grads = [torch.full((2, 2), 3.0), torch.full((5,), 4.0)]
    norm = math.sqrt(4 * 9 + 5 * 16)
    clip_(grads, 2 * norm, joint_norm(grads, [], World()))
    assert grads[0][0, 0] == 3.0 and grads[1][0] == 4.0
    clip_(grads, 0.5, joint_norm(grads, [], World()))
    joint = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    assert joint == pytest.approx(0.5, rel=1e-5)
    assert grads[0][0, 0].item() == pytest.approx(1.5 / norm, rel=1e-5)


def test_clipping_is_part_of_a_step() -> None:
    # After clipping, a gradient's length no longer matters, for momentum and moments alike.
    clipped = TrainConfig(grad_clip=0.1)
    small, large = move(clipped, 3, scale=10.0), move(clipped, 3, scale=1000.0)
    for name in SHAPES:
        torch.testing.assert_close(small[name], large[name], atol=1e-5, rtol=1e-4)


def test_a_parameter_without_role_is_refused() -> None:
    roles = {name: role for name, role in ROLES.items() if name != "gate"}
    with pytest.raises(RoleError, match="'gate' has no role"):
        build_optimizer(Toy(), roles, TrainConfig(), World())


def test_a_role_without_parameter_is_refused() -> None:
    with pytest.raises(RoleError, match=r"'head\.3'.*no trainable parameter"):
        build_optimizer(Toy(), ROLES | {"head.3": Role.PROJ}, TrainConfig(), World())


def test_a_matrix_role_on_a_vector_is_refused() -> None:
    with pytest.raises(RoleError, match=r"'gate'.*Muon moves matrices only"):
        build_optimizer(Toy(), ROLES | {"gate": Role.MLP}, TrainConfig(), World())


def test_a_parameter_that_the_loss_does_not_reach_is_refused() -> None:
    # A head that no optimizer and no gradient reaches once cost real runs 5 ms a step, unseen.
    model = Toy()
    optimizer = build_optimizer(model, ROLES, TrainConfig(), World())
    for name, parameter in model.named_parameters():
        parameter.grad = None if name == "b" else gradients(0)[name]
    with pytest.raises(RoleError, match="'b' gets no gradient"):
        optimizer.step_(1.0, 0.9)


def test_every_parameter_of_a_full_model_moves() -> None:
    config = ModelConfig(
        vocab_size=50,
        num_layers=4,
        model_dim=16,
        num_heads=2,
        num_kv_heads=1,
        mlp_dim=32,
        rope_dims=4,
        smear="gated",
        bigram_buckets=11,
        bigram_dim=8,
        value_embed_dim=8,
        value_embed_layers=1,
        skips="gated",
        logit_bias=True,
        tied=False,
    )
    model = GPT(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_config = TrainConfig(scalar_weight_decay=0.1)
    optimizer = build_optimizer(model, parameter_roles(model), train_config, World())
    tokens = torch.randint(50, (2, 17), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step_(1.0, 0.9)
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_the_state_names_every_moment() -> None:
    optimizer = build_optimizer(Toy(), ROLES, TrainConfig(), World())
    names = set(optimizer.state())
    assert {"muon.momentum.2x4x6", "muon.momentum.1x9x3", "adamw.gate.exp_avg"} <= names
    assert "adamw.table.step" in names and len(names) == 2 + 3 * 3
