"""Context-only SLOT: before each chunk, a shift fitted to the window's own past, lane by lane.

    hidden state h_t -> logits(h_t + delta) + bias,  delta [D] and bias [V] of the lane's window:
    they minimise  mean CE over the last `focal` context positions
                   + ridge / 2 (|delta|^2 + |bias|^2)

The context of a window ends where its chunk begins, so all that is fitted has been scored. That is
so only because each lane is fitted by itself: one delta for several overlapping windows would be
fitted to the chunks that it then prices (openai/parameter-golf PRs 1306, 1333, 1350, 1372).
Source: PR 1306 (AdamW, hidden) and PR 1350 (L-BFGS, logits, focal, warm start, clamp), made causal.
Shapes: B lanes, T positions, C context positions, F fitted ones, D model_dim, V vocab.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import SlotConfig
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor, is_padding

Shift = tuple[Tensor, Tensor]
"""delta [B, 1, D] and bias [B, 1, V]."""
_LBFGS_GRAD, _LBFGS_CHANGE = 1e-7, 1e-9


class SlotPredictor(Predictor):
    """The network with its last hidden state and its logits shifted as the context asks for."""

    def __init__(self, model: GPT, settings: SlotConfig, *, window: int, stride: int) -> None:
        self.vocab_size = model.config.vocab_size
        self.chunk = stride
        self._model, self._settings = model, settings
        self._inner = NeuralPredictor(model, window=window, stride=stride)
        self.restore()

    @torch.inference_mode()
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. The network's hidden states, shifted."""
        return self._logits(self._inner.hidden(tokens_BT), self._shift).log_softmax(-1)

    @torch.inference_mode()
    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. The network's hidden state, shifted."""
        hidden_B1D = self._inner.step_hidden(last_B)[:, None]
        return self._logits(hidden_B1D, self._shift)[:, 0].log_softmax(-1)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Fit the next chunk's shift to the context that it will have."""
        self._inner.observe(chunk_BT)
        context_BC, first_B1 = (part.clone() for part in self._inner.past(len(chunk_BT)))
        if not context_BC.shape[1]:
            return
        focal = self._settings.focal or context_BC.shape[1]
        with torch.no_grad():
            hidden_BFD = self._model.hidden(context_BC)[:, -focal:]
        labels_BF = torch.cat([context_BC[:, 1:], first_B1], dim=1)[:, -focal:]
        last_B1 = context_BC[:, -labels_BF.shape[1] :][:, :1]
        counts_BF = ~is_padding(last_B1, labels_BF, self._model.config.bos_id)
        self._shift = self._fit(hidden_BFD, labels_BF, counts_BF.float())

    def restore(self) -> None:
        """See Predictor. No shift."""
        self._inner.restore()
        self._shift: Shift | None = None

    def _logits(self, hidden_BTD: Tensor, shift: Shift | None) -> Tensor:
        if shift is None:
            return self._model.logits(hidden_BTD)
        delta_B1D, bias_B1V = shift
        return self._model.logits(hidden_BTD + delta_B1D.to(hidden_BTD.dtype)) + bias_B1V

    def _fit(self, hidden_BFD: Tensor, labels_BF: Tensor, counts_BF: Tensor) -> Shift:
        """Return the clamped fit of every lane."""
        settings, num_lanes = self._settings, len(labels_BF)
        start = self._shift if settings.warm else None
        if start is None:
            widths = (hidden_BFD.shape[-1], self.vocab_size)
            delta, bias = (torch.zeros(num_lanes, 1, w, device=hidden_BFD.device) for w in widths)
            start = (delta, bias)
        # The lanes' losses add up and Adam moves each number by itself, so all lanes go at once;
        # a common line search would tie them together.
        is_lbfgs = settings.optimizer == "lbfgs"
        groups = [slice(i, i + 1) for i in range(num_lanes)] if is_lbfgs else [slice(None)]
        fits = []
        for lanes in groups:
            context = (hidden_BFD[lanes], labels_BF[lanes], counts_BF[lanes])
            shift = (start[0][lanes].clone(), start[1][lanes].clone())
            fits.append(self._minimise(shift, context))
        delta_B1D, bias_B1V = (torch.cat(parts) for parts in zip(*fits, strict=True))
        clamp = settings.clamp
        return delta_B1D.clamp(-clamp, clamp), bias_B1V.clamp(-clamp, clamp)

    def _minimise(self, shift: Shift, context: tuple[Tensor, Tensor, Tensor]) -> Shift:
        """Move what is fitted of the shift from where it is to less loss."""
        settings = self._settings
        learns = (settings.fit != "bias", settings.fit != "hidden")
        fitted = [
            p.requires_grad_(True) for p, is_fitted in zip(shift, learns, strict=True) if is_fitted
        ]

        def loss() -> float:
            for part in fitted:
                part.grad = None
            value = self._loss(shift, *context)
            value.backward()
            return float(value.detach())

        if settings.optimizer == "adam":
            betas = (settings.beta1, settings.beta2)
            rule = torch.optim.AdamW(fitted, settings.lr, betas, settings.eps, weight_decay=0.0)
            for _ in range(settings.steps):
                rule.step(loss)
        else:
            rule = torch.optim.LBFGS(
                fitted,
                max_iter=settings.steps,
                history_size=settings.history,
                tolerance_grad=_LBFGS_GRAD,
                tolerance_change=_LBFGS_CHANGE,
                line_search_fn="strong_wolfe",
            )
            rule.step(loss)
        return shift[0].detach(), shift[1].detach()

    def _loss(
        self, shift: Shift, hidden_BFD: Tensor, labels_BF: Tensor, counts_BF: Tensor
    ) -> Tensor:
        """Return the sum over lanes of what each of them minimises."""
        logits_BFV = self._logits(hidden_BFD, shift)
        flat = (logits_BFV.flatten(0, 1), labels_BF.flatten())
        nats_BF = F.cross_entropy(*flat, reduction="none").view_as(counts_BF)
        mean_B = (nats_BF * counts_BF).sum(1) / counts_BF.sum(1).clamp(min=1)
        squares = shift[0].square().sum() + shift[1].square().sum()
        return mean_B.sum() + 0.5 * self._settings.ridge * squares
