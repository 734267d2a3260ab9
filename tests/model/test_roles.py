"""Every parameter of every kind of model has exactly one role."""

import pytest
import torch

from parbyte.base.errors import RoleError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles


def full_model() -> GPT:
    config = ModelConfig(
        vocab_size=20,
        smear="gated",
        bigram_buckets=8,
        value_embed_dim=4,
        value_embed_layers=1,
        skips="gated",
        tied=False,
        logit_bias=True,
    )
    return GPT(config, seed=None)


def test_every_parameter_has_one_role_and_tables_are_not_taken_for_matrices() -> None:
    model = full_model()
    roles = parameter_roles(model)
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert {name for name, role in roles.items() if role is Role.EMBED} == {"embed.table", "head"}
    tables = {"embed.bigram.table", "value_embed.table"}
    assert {name for name, role in roles.items() if role is Role.TABLE} == tables
    projections = {"embed.bigram.proj", "value_embed.proj"}
    assert {name for name, role in roles.items() if role is Role.PROJ} == projections
    assert roles["blocks.1.attn.v"] is Role.ATTN
    assert roles["blocks.0.mlp.down"] is Role.MLP
    for name in ("blocks.0.resid_mix", "skip_weights", "skip_gates", "embed.smear.gate"):
        assert roles[name] is Role.SCALAR


def test_matrices_have_two_dims_and_whatever_has_fewer_is_a_scalar() -> None:
    model = full_model()
    roles = parameter_roles(model)
    for name, parameter in model.named_parameters():
        if roles[name] is not Role.SCALAR:
            assert parameter.ndim == 2
        if parameter.ndim < 2:
            assert roles[name] is Role.SCALAR


@pytest.mark.parametrize("name", ["extra", "blocks.0.attn.gate"])
def test_a_parameter_without_a_role_is_refused(name: str) -> None:
    model = full_model()
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).register_parameter(leaf, torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(RoleError, match=f"'{name}' has no role"):
        parameter_roles(model)
