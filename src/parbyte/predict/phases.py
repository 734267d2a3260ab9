"""Phased test-time training: at set places of the stream the network trains on all of its past.

Published over documents in order of length, which a decoder would have to be told
(openai/parameter-golf PRs 1610, 1626, 1855); here in the order of the stream, which it knows.
Shapes: B lanes, N tokens behind, W window.
"""

import torch
from torch import Tensor

from parbyte.kernels.loss import IGNORED
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import LoraConfig, TTTConfig
from parbyte.predict.predictor import is_padding
from parbyte.predict.trained import Learner, choose_trained, cosine


class Phases:
    """The scored tokens of all lanes, and the borders at which the network learns from them."""

    def __init__(self, settings: LoraConfig, bos_id: int, window: int) -> None:
        """Start with nothing scored."""
        self._settings, self._bos_id, self._window = settings, bos_id, window
        self._borders = list(settings.phases)
        self._chunks: list[Tensor] = []
        self._num_scored = 0

    def note(self, chunk_BT: Tensor, num_scored: int) -> None:
        """Remember a scored chunk; `num_scored` of its tokens are no padding."""
        if self._borders:
            self._chunks.append(chunk_BT)
            self._num_scored += num_scored

    def run_if_due(self, model: GPT) -> bool:
        """Train all of the network's weights if a border is passed; say whether it was."""
        if not self._borders or self._num_scored < self._borders[0]:
            return False
        self._borders = [border for border in self._borders if border > self._num_scored]
        trained = choose_trained(model, "all", 1)
        self._train(model, Learner(trained, self._rule()))
        model.requires_grad_(False)
        return True

    def _train(self, model: GPT, learner: Learner) -> None:
        """Make one pass in order, one step a window; the rate falls along a cosine to 0."""
        tokens_BN = torch.cat(self._chunks, dim=1)
        first_B1 = torch.full_like(tokens_BN[:, :1], self._bos_id)
        inputs_BN = torch.cat([first_B1, tokens_BN[:, :-1]], dim=1)
        labels_BN = torch.where(is_padding(first_B1, tokens_BN, self._bos_id), IGNORED, tokens_BN)
        for start in range(0, tokens_BN.shape[1], self._window):
            span = slice(start, start + self._window)
            if bool((labels_BN[:, span] != IGNORED).any()):
                model(inputs_BN[:, span], labels_BN[:, span]).backward()
                learner.step_(cosine(start, tokens_BN.shape[1]))

    def _rule(self) -> TTTConfig:
        settings, rate = self._settings, self._settings.phase_lr
        return TTTConfig(
            optimizer="sgd",
            lr=rate,
            embed_lr=rate,
            scalar_lr=rate,
            momentum=settings.phase_momentum,
            clip=settings.phase_clip,
        )
