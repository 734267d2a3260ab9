"""One role per parameter: what a tensor is decides how it is trained, rounded and stored."""

from enum import StrEnum
from typing import TYPE_CHECKING

from parbyte.base.errors import RoleError

if TYPE_CHECKING:
    from parbyte.model.gpt import GPT


class Role(StrEnum):
    """What a parameter is."""

    EMBED = "embed"
    """The token table, and the output table where it is a second one."""
    TABLE = "table"
    """Looked-up tables beside it: bigram hash, value embeddings."""
    ATTN = "attn"
    """Matrices of attention."""
    MLP = "mlp"
    """Matrices of the MLPs."""
    PROJ = "proj"
    """The other matrices: projections of the tables."""
    SCALAR = "scalar"
    """Vectors, gates, gains, mixes and biases."""


_ROLE_BY_SUFFIX = {
    "embed.table": Role.EMBED,
    "head": Role.EMBED,
    "bigram.table": Role.TABLE,
    "value_embed.table": Role.TABLE,
    "bigram.proj": Role.PROJ,
    "value_embed.proj": Role.PROJ,
    "attn.q": Role.ATTN,
    "attn.k": Role.ATTN,
    "attn.v": Role.ATTN,
    "attn.out": Role.ATTN,
    "mlp.up": Role.MLP,
    "mlp.down": Role.MLP,
    "attn.gain": Role.SCALAR,
    "attn.value_scale": Role.SCALAR,
    "attn_scale": Role.SCALAR,
    "mlp_scale": Role.SCALAR,
    "resid_mix": Role.SCALAR,
    "bigram.scale": Role.SCALAR,
    "value_embed.scale": Role.SCALAR,
    "smear.gate": Role.SCALAR,
    "smear.scale": Role.SCALAR,
    "skip_weights": Role.SCALAR,
    "skip_gates": Role.SCALAR,
    "logit_bias": Role.SCALAR,
}


def parameter_roles(model: "GPT") -> dict[str, Role]:
    """Return the role of every parameter, by its name in `named_parameters`.

    Raises RoleError if a parameter has none.
    """
    return {name: role_of(name) for name, _ in model.named_parameters()}


def role_of(name: str) -> Role:
    """Return the role of the parameter called `name`; its last one or two parts decide.

    Raises RoleError if it has none.
    """
    parts = name.split(".")
    for depth in (2, 1):
        role = _ROLE_BY_SUFFIX.get(".".join(parts[-depth:]))
        if role is not None:
            return role
    raise RoleError(f"parameter '{name}' has no role; add it to model/roles.py")
