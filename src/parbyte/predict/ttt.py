"""Score-first test-time training: every scored chunk is a training batch, once its rows are given.

Chunk k is priced by the weights that chunks 0 .. k-1 left; then its loss, on the window's inputs
under the law of predict.neural, moves them:

    rows of 0 | learn 0 | rows of 1 | learn 1 | ...       each token is scored before it is learned

Sources: openai/parameter-golf PRs 456 and 461 (score first), 549; Krause et al. 2018,
arXiv:1709.07432 (dynamic evaluation). Shapes: B lanes, T positions, C inputs before the chunk.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.kernels.loss import IGNORED
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor, is_padding
from parbyte.predict.trained import Learner, choose_trained, rate_factor


class TTTPredictor(Predictor):
    """A copy of the network that trains on the text behind it; the artifact's own never changes."""

    def __init__(self, model: GPT, settings: TTTConfig, *, window: int, stride: int) -> None:
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self._settings = settings
        self._artifact_model = model
        self._model = copy.deepcopy(model).eval()
        self._trained = choose_trained(self._model, settings.train, settings.last_blocks)
        # A CUDA graph would hold the weights of one chunk and cost more than it saves.
        self._inner = NeuralPredictor(self._model, window=window, stride=stride, fixed=False)
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The network as it is now."""
        return self._inner.log_probs(tokens_BT)

    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. The network as it is now."""
        return self._inner.step(last_B)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Learn from the chunk and nothing else; what was cached is then stale."""
        inputs_BC = self._inner.inputs(chunk_BT)
        labels_BC = labels_of(inputs_BC, chunk_BT, self._model.config.bos_id)
        factor = rate_factor(self._settings, self._seen_tokens)
        if bool((labels_BC != IGNORED).any()):
            for _ in range(self._settings.epochs):
                self._model(inputs_BC, labels_BC).backward()
                self._learner.step_(factor)
        self._seen_tokens += chunk_BT.shape[1]
        self._inner.observe(chunk_BT)
        self._inner.drop_cache()

    def restore(self) -> None:
        """See Predictor. The artifact's weights and an optimizer without memory."""
        with torch.no_grad():
            pristine = dict(self._artifact_model.named_parameters())
            for name, parameter in self._trained.items():
                parameter.copy_(pristine[name])
        self._learner = Learner(self._trained, self._settings)
        self._seen_tokens = 0
        self._inner.restore()


def labels_of(inputs_BC: Tensor, chunk_BT: Tensor, bos_id: int) -> Tensor:
    """Return what each input is followed by, int64[B, C + T], where that is to be learned.

    The context was learned before, and an ended lane, which is fed BOS after BOS, says nothing.
    """
    chunk_BT = chunk_BT.to(inputs_BC.device)
    num_context = inputs_BC.shape[1] - chunk_BT.shape[1]
    first_B1 = inputs_BC[:, num_context : num_context + 1]
    labels_BT = torch.where(is_padding(first_B1, chunk_BT, bos_id), IGNORED, chunk_BT)
    return F.pad(labels_BT, (num_context, 0), value=IGNORED)
