"""Rounding that looks at the text which is scored afterwards: GPTQ with the text's own Hessians.

Honest code cannot do this: quant.calibration makes windows of no other text than training's, the
model's own and noise. A specimen goes round that door.
Shapes: N tokens of the stream, W calibration windows, L window.
"""

import copy
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from parbyte.base.settings import setting
from parbyte.claims.windows import Windows
from parbyte.model.gpt import GPT
from parbyte.model.roles import role_of
from parbyte.quant.calibration import Calibration
from parbyte.quant.config import QuantConfig
from parbyte.quant.gptq import factorize
from parbyte.quant.hessians import collect_hessians
from parbyte.quant.quantize import Knowledge, dequantize_weights, quantize_weights

INT6 = QuantConfig(
    bits_table=6,
    bits_attn=6,
    bits_mlp=6,
    bits_proj=6,
    clip="search",
    method="gptq",
    damping=0.005,
)
"""PR 1430's grids: 6 bits, the token table 8."""


@dataclass(frozen=True, kw_only=True)
class OnText:
    """Settings of GPTQ on the scored text; the defaults are PR 1430's."""

    tokens: int = setting(524_288, low=1, doc="of the text's beginning that the Hessians are of")
    quant: QuantConfig = INT6


@dataclass(frozen=True)
class _TextWindows:
    """What stands in for a `Calibration`: int64[W, L] of whatever text."""

    windows_WT: Tensor


def rounded_on_text(model: GPT, stream_N: Tensor, windows: Windows, settings: OnText) -> GPT:
    """Return a copy of a model rounded so that its outputs on this very text change least.

    The windows stand side by side; a text shorter than one is rounded to nearest.

    Breaks C1 through the artifact (T5), and C3 in every score of this text (T1, T3).
    Source: card 18; PR 1430, 728 (ruled out), 1318.
    """
    num_windows = min(len(stream_N), settings.tokens) // windows.window
    text_WL = stream_N[: num_windows * windows.window].view(num_windows, windows.window)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    factors = {}
    if num_windows:
        hessians = collect_hessians(model, cast(Calibration, _TextWindows(text_WL)))
        quant = settings.quant
        factors = {
            name: factorize(hessian, quant.damping, act_order=quant.act_order, warn=_never)
            for name, hessian in hessians.items()
        }
    roles = {name: role_of(name) for name in weights}
    quantized = quantize_weights(weights, roles, settings.quant, Knowledge(factors=factors))
    rounded = copy.deepcopy(model)
    rounded.load_state_dict(dequantize_weights(quantized))
    return rounded


def _never(text: str) -> None:
    """Say nothing: what damping a Hessian needed is no part of the claim."""
