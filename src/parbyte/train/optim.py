"""One optimizer for a whole model: Muon for matrices, AdamW for the rest, by parameter role.

Gradients flow: backward -> stacked by shape -> averaged over ranks, of stacks each rank's share ->
clipped by their joint norm -> momentum, moments -> moved matrices gathered from their ranks.
"""

# torch leaves its list operations (_foreach_*) out of its public names.
# pyright: reportPrivateImportUsage=false

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parbyte.base.errors import RoleError
from parbyte.base.world import World
from parbyte.model.roles import Role
from parbyte.train.config import TrainConfig
from parbyte.train.exchange import average_gradients_, joint_norm
from parbyte.train.muon import Muon

MATRIX_ROLES = frozenset({Role.ATTN, Role.MLP, Role.PROJ})
_ADAM_EPSILON = 1e-8
_CLIP_EPSILON = 1e-6


def build_optimizer(
    model: nn.Module, roles: Mapping[str, Role], config: TrainConfig, world: World
) -> "Optimizer":
    """Put every trainable parameter into exactly one group.

    Raises RoleError for a parameter without role, a role without parameter, or a matrix role on
    something that is no matrix.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_coverage(trainable, roles)
    matrices = {n: p for n, p in trainable.items() if roles[n] in MATRIX_ROLES}
    for name, parameter in matrices.items():
        if parameter.ndim != 2:
            raise RoleError(
                f"parameter '{name}' has role '{roles[name]}' and shape {tuple(parameter.shape)}, "
                "but Muon moves matrices only; give it another role in model/roles.py"
            )
    others = {n: p for n, p in trainable.items() if n not in matrices}
    return Optimizer(
        Muon(matrices, config, world),
        AdamW(others, roles, config),
        trainable,
        config,
        world,
    )


class AdamW:
    """AdamW for embeddings, tables and scalars, each role with its own rate and decay.

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101; arithmetic by torch's fused kernels.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], roles: Mapping[str, Role], config: TrainConfig
    ) -> None:
        """Group the parameters by role, with all state in place before the first step."""
        self._parameters = dict(parameters)
        plans = {
            Role.EMBED: (config.embed_lr, config.embed_weight_decay),
            Role.TABLE: (config.table_lr, config.embed_weight_decay),
            Role.SCALAR: (config.scalar_lr, config.scalar_weight_decay),
        }
        groups = []
        for role, (lr, weight_decay) in plans.items():
            members = [p for name, p in parameters.items() if roles[name] == role]
            if members:
                group = {"params": members, "lr": lr, "weight_decay": weight_decay, "base_lr": lr}
                groups.append(group)
        self._torch: torch.optim.AdamW | None = None
        if groups:
            betas = (config.beta1, config.beta2)
            self._torch = torch.optim.AdamW(groups, betas=betas, eps=_ADAM_EPSILON, fused=True)
            for parameter in parameters.values():
                self._torch.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

    def gradients(self) -> list[Tensor]:
        """Return the live gradients."""
        return [p.grad for p in self._parameters.values() if p.grad is not None]

    def step_(self, factor: float) -> None:
        """Move every parameter with its role's rate times `factor`."""
        if self._torch is None:
            return
        for group in self._torch.param_groups:
            group["lr"] = group["base_lr"] * factor
        self._torch.step()

    def state(self) -> dict[str, Tensor]:
        """Return the live moments and step counts by name; not copies."""
        if self._torch is None:
            return {}
        return {
            f"{name}.{key}": value
            for name, parameter in self._parameters.items()
            for key, value in self._torch.state[parameter].items()
        }


class Optimizer:
    """Muon and AdamW behind one step: average over ranks, clip, move, forget the gradients."""

    def __init__(
        self,
        muon: Muon,
        adamw: AdamW,
        trainable: Mapping[str, nn.Parameter],
        config: TrainConfig,
        world: World,
    ) -> None:
        """Bind the two halves; use build_optimizer, which checks that they cover the model."""
        self._muon = muon
        self._adamw = adamw
        self._trainable = dict(trainable)
        self._config = config
        self._world = world
        self._is_checked = False

    def step_(self, factor: float, momentum: float, weight: float = 1.0) -> None:
        """Make one step from the gradients that backward left, and forget them.

        factor: multiplies every rate. momentum: Muon's. weight: this rank's share of tokens.
        """
        self._check_gradients_once()
        others = self._adamw.gradients()
        own = average_gradients_(self._muon.stack_gradients(), others, weight, self._world)
        if self._config.grad_clip:
            norm = joint_norm(own, others, self._world)
            clip_([*own, *others], self._config.grad_clip, norm)
        self._muon.step_(own, self._config.matrix_lr * factor, momentum)
        self._adamw.step_(factor)
        for parameter in self._trainable.values():
            parameter.grad = None

    def gather_state_(self) -> None:
        """Complete the momentum of all matrices on every rank; a collective."""
        self._muon.gather_momentum_()

    def state(self) -> dict[str, Tensor]:
        """Return the live state by name; not copies. Gathered, it is the same on every rank."""
        muon = {f"muon.{name}": tensor for name, tensor in self._muon.state().items()}
        adamw = {f"adamw.{name}": tensor for name, tensor in self._adamw.state().items()}
        return muon | adamw

    def _check_gradients_once(self) -> None:
        if self._is_checked:
            return
        for name, parameter in self._trainable.items():
            if parameter.grad is None:
                raise RoleError(
                    f"parameter '{name}' gets no gradient: the loss does not depend on it; "
                    "leave it out of the model or set requires_grad = False"
                )
        self._is_checked = True


def clip_(grads: Sequence[Tensor], max_norm: float, norm: Tensor) -> None:
    """Scale gradients so that their joint norm, which is now `norm`, is at most `max_norm`."""
    factor = (max_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0)
    # On the CPU reading the factor is free and spares a pass; on a GPU it would stall the queue.
    if factor.device.type == "cpu" and factor.item() == 1.0:
        return
    torch._foreach_mul_(list(grads), factor)


def _check_coverage(trainable: Mapping[str, nn.Parameter], roles: Mapping[str, Role]) -> None:
    for name in trainable:
        if name not in roles:
            raise RoleError(f"parameter '{name}' has no role; add it to model/roles.py")
    unknown = sorted(set(roles) - set(trainable))
    if unknown:
        raise RoleError(
            f"role given for '{unknown[0]}', which is no trainable parameter of the model; "
            "take it out of model/roles.py"
        )
