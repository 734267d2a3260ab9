"""Muon: momentum, orthogonalised by Newton-Schulz, for every weight matrix of the network.

Same-shaped matrices are handled as one stack, so that a step is a handful of batched products
instead of hundreds of small ones, and ranks share the matrices of a stack between them.
Letters: N matrices, R rows (outputs), C columns (inputs).
"""

# torch leaves its list operations (_foreach_*) out of its public names.
# pyright: reportPrivateImportUsage=false

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parbyte.base.world import World
from parbyte.kernels.newton_schulz import (
    MUON_QUINTIC,
    POLAR_EXPRESS,
    Coefficients,
    orthogonalize,
)
from parbyte.train.config import TrainConfig
from parbyte.train.exchange import Gathering, Share, share_of

_COEFFICIENTS: dict[str, Coefficients] = {"muon": MUON_QUINTIC, "polar": POLAR_EXPRESS}
_ROW_EPSILON = 1e-7


@dataclass(frozen=True)
class _Stack:
    """Same-shaped matrices and their momentum, of which this rank keeps its share up to date."""

    parameters: list[nn.Parameter]
    weights: list[Tensor]
    momentum_NRC: Tensor
    share: Share

    @property
    def own_momentum(self) -> Tensor:
        """Return the live momentum of this rank's matrices."""
        return self.momentum_NRC[self.share.start : self.share.stop]


class Muon:
    """Move matrices by orthogonalised Nesterov momentum with decoupled weight decay.

    momentum <- mu momentum + g;  u = g + mu momentum;  W <- (1 - lr wd) W - lr s orth(u),
    with s = sqrt(max(1, R / C)). row_normalize divides each row of u by its norm first.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; rows: MuonEq-R,
    arXiv:2603.28254; batched and shared between ranks as in openai/parameter-golf PR #399.
    """

    def __init__(
        self, matrices: Mapping[str, nn.Parameter], config: TrainConfig, world: World
    ) -> None:
        """Stack the matrices by shape."""
        self._config = config
        self._world = world
        self._stacks = _build_stacks(matrices, world)
        on_cuda = any(p.is_cuda for p in matrices.values())
        self._dtype = torch.bfloat16 if on_cuda else torch.float32
        self._direction: Callable[..., Tensor] = _direction
        if config.compile and on_cuda:
            self._direction = torch.compile(_direction, fullgraph=True, dynamic=False)

    def stack_gradients(self) -> list[Tensor]:
        """Return the gradients as one new float32[N, R, C] per stack, in the stacks' order."""
        return [torch.stack([_grad(p) for p in s.parameters]) for s in self._stacks]

    def step_(self, own_grads: Sequence[Tensor], lr: float, momentum: float) -> None:
        """Move every matrix; own_grads: this rank's shares of the stacks' means, used up."""
        gatherings = [
            self._start_gathering(stack, own_grad, momentum)
            for stack, own_grad in zip(self._stacks, own_grads, strict=True)
        ]
        for stack, gathering in zip(self._stacks, gatherings, strict=True):
            num_rows, num_columns = stack.momentum_NRC.shape[1:]
            scale = max(1.0, num_rows / num_columns) ** 0.5
            if self._config.weight_decay:
                torch._foreach_mul_(stack.weights, 1.0 - lr * self._config.weight_decay)
            directions = list(gathering.wait().unbind(0))
            torch._foreach_add_(stack.weights, directions, alpha=-lr * scale)

    def gather_momentum_(self) -> None:
        """Fill in the momentum of other ranks' matrices; a collective."""
        if self._world.size == 1:
            return
        for stack in self._stacks:
            gathering = Gathering(stack.own_momentum, len(stack.weights), self._world)
            stack.momentum_NRC.copy_(gathering.wait())

    def state(self) -> dict[str, Tensor]:
        """Return the live momentum by name; not copies. Other ranks' part is as last gathered."""
        return {f"momentum.{_shape_name(s.momentum_NRC)}": s.momentum_NRC for s in self._stacks}

    def _start_gathering(self, stack: _Stack, grad_NRC: Tensor, momentum: float) -> Gathering:
        own_momentum = stack.own_momentum.mul_(momentum).add_(grad_NRC)
        update_NRC = grad_NRC.add_(own_momentum, alpha=momentum)
        if stack.share.num_own:
            coefficients = _COEFFICIENTS[self._config.newton_schulz]
            update_NRC = self._direction(
                update_NRC,
                coefficients,
                row_normalize=self._config.row_normalize,
                dtype=self._dtype,
            )
        return Gathering(update_NRC, len(stack.weights), self._world)


def _build_stacks(matrices: Mapping[str, nn.Parameter], world: World) -> list[_Stack]:
    by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for parameter in matrices.values():
        by_shape[parameter.shape].append(parameter)
    stacks = []
    for parameters in by_shape.values():
        weights = [parameter.detach() for parameter in parameters]
        momentum_NRC = torch.zeros_like(torch.stack(weights))
        stacks.append(_Stack(parameters, weights, momentum_NRC, share_of(len(weights), world)))
    return stacks


def _direction(
    update_NRC: Tensor, coefficients: Coefficients, *, row_normalize: bool, dtype: torch.dtype
) -> Tensor:
    if row_normalize:
        norms_NR1 = torch.linalg.vector_norm(update_NRC, dim=-1, keepdim=True)
        update_NRC = update_NRC / norms_NR1.clamp_min(_ROW_EPSILON)
    return orthogonalize(update_NRC, coefficients, dtype=dtype).float().contiguous()


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "the optimizer checks this before the first step"
    return parameter.grad


def _shape_name(stack_NRC: Tensor) -> str:
    return "x".join(str(size) for size in stack_NRC.shape)
