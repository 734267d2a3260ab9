"""What of a network learns while its text is scored, and how fast: decided by what a tensor is."""

from collections.abc import Iterable

from parbyte.base.errors import ArtifactError
from parbyte.model.roles import Role, role_of
from parbyte.predict.adapter_config import TTTConfig

TABLE_ROLES = (Role.EMBED, Role.TABLE)


def learning_names(
    names: Iterable[str], train: str, last_blocks: int, num_layers: int
) -> list[str]:
    """Return which of the named parameters learn.

    train: "all", "last" (everything inside the last blocks), "no_embed" (all but the tables),
    "scalars". Raises ArtifactError if the network has fewer blocks than `last_blocks`.
    """
    if train == "last" and last_blocks > num_layers:
        raise ArtifactError(
            f"'predict.stack[0].last_blocks' is {last_blocks}, but the network has {num_layers} "
            "blocks"
        )
    inside = tuple(f"blocks.{num_layers - 1 - i}." for i in range(last_blocks))

    def learns(name: str) -> bool:
        if train == "last":
            return name.startswith(inside)
        if train == "scalars":
            return role_of(name) == Role.SCALAR
        return train == "all" or role_of(name) not in TABLE_ROLES

    return [name for name in names if learns(name)]


def rate_of(settings: TTTConfig, role: Role) -> float:
    """Return the rate of a role's parameters."""
    if role == Role.SCALAR:
        return settings.scalar_lr
    return settings.embed_lr if role in TABLE_ROLES else settings.lr


def decay_of(settings: TTTConfig, role: Role) -> float:
    """Return the decoupled decay of a role's parameters, per rate; vectors have none."""
    return 0.0 if role == Role.SCALAR else settings.weight_decay
