"""What a step minimises: nats of the next token, and of tokens further ahead if asked.

Shapes: B rows, T positions, D model_dim, V vocab, K heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parbyte.kernels.loss import softcapped_cross_entropy
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, parameter_roles
from parbyte.text.batches import IGNORED


class Objective(nn.Module):
    """A model and the heads that exist only while it is trained.

    Head k = 1..K is a matrix [V, D], zero at first, that predicts token t + 1 + k from the hidden
    state which predicts token t + 1:  loss = nats + weight * mean over k of nats_k.
    Source: Gloeckle et al. 2024, arXiv:2404.19737; in this form openai/parameter-golf PRs 265 and
    1430. The heads of 1430 are in no optimizer, so that they stay zero and teach nothing.
    """

    def __init__(self, model: GPT, num_heads: int = 0, weight: float = 0.0) -> None:
        """Put `num_heads` heads beside the model, on its device."""
        super().__init__()
        self.model = model
        self.weight = weight
        self.heads = nn.ParameterList(
            nn.Parameter(torch.zeros_like(model.embed.table)) for _ in range(num_heads)
        )

    def forward(
        self, inputs_BT: Tensor, targets_BT: Tensor, ends_E: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, and the nats per token of it that the model itself accounts for.

        ends_E: see `GPT.hidden`.
        """
        hidden_BTD = self.model.hidden(inputs_BT, ends_E=ends_E)
        nats = self.model.loss(hidden_BTD, targets_BT)
        if not self.heads:
            return nats, nats
        ahead = [
            self._nats_ahead(hidden_BTD, head_VD, further(targets_BT, k))
            for k, head_VD in enumerate(self.heads, 1)
        ]
        return nats + self.weight * torch.stack(ahead).mean(), nats

    def roles(self) -> dict[str, Role]:
        """Return the role of every parameter, by its name in `named_parameters`."""
        roles = {f"model.{name}": role for name, role in parameter_roles(self.model).items()}
        return roles | {f"heads.{k}": Role.PROJ for k in range(len(self.heads))}

    def _nats_ahead(self, hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor) -> Tensor:
        config = self.model.config
        return softcapped_cross_entropy(
            hidden_BTD.flatten(0, 1),
            head_VD.to(hidden_BTD.dtype),
            None,
            targets_BT.flatten(),
            scale=config.logit_scale,
            softcap=config.softcap,
        )


def further(targets_BT: Tensor, steps: int) -> Tensor:
    """Return int64[B, T]: the target so many positions later, -100 beyond the row's end."""
    return F.pad(targets_BT[:, steps:], (0, steps), value=IGNORED)
