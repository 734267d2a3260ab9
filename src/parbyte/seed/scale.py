"""The settings of PR 1430's evaluation, brought to the size of a network and of a text.

What the contest says in windows is kept in windows; the tables shrink with the text, so that as
many tokens come to a bucket as at the contest. So do the batches, behind which the tables are
filled; SLOT's objective is the mean over a batch, so its eps grows as they shrink and all else
stays as it was.
"""

import math
from dataclasses import dataclass, replace

from parbyte.claims.hashed import Mixer
from parbyte.claims.slot import SampleSlot
from parbyte.claims.ttt import InPlace
from parbyte.claims.windows import Windows

_STRIDE, _BATCH, _MIN_BATCH = 64, 128, 4
_RANK_WINDOWS, _RANK_BATCHES = 121_136, 947
_RANK_TOKENS = _RANK_WINDOWS * _STRIDE
"""Tokens that one of the contest's eight ranks counts in its tables of 4,194,304 buckets."""
_WINDOWS_A_STEP = 16
_AUDITED_WINDOW, _AUDITED_BATCH, _AUDITED_WINDOWS_A_STEP = 128, 4, 2
_MIN_BUCKETS = 256


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How one text is walked over, trained on, fitted to and counted."""

    plain: Windows
    script: Windows
    """Sliding windows as the script cuts them."""
    in_place: InPlace
    slot: SampleSlot
    mixer: Mixer

    @property
    def sliding(self) -> Windows:
        """The script's windows without its error at the end of the text."""
        return replace(self.script, repeats_tail=False)


def contest_scale(window: int, num_layers: int, num_tokens: int) -> Scale:
    """Return PR 1430's settings for windows of a network's own length."""
    stride, buckets = stride_of(window), buckets_for(num_tokens)
    batch = math.ceil(num_tokens // stride / _RANK_BATCHES)
    batch = min(_BATCH, max(_MIN_BATCH, batch))
    return Scale(
        plain=Windows(window=window, stride=window, batch=_BATCH),
        script=Windows(window=window, stride=stride, batch=batch),
        in_place=InPlace(
            chunk=_WINDOWS_A_STEP * window, rows=_WINDOWS_A_STEP, frozen_blocks=num_layers - 1
        ),
        slot=SampleSlot(eps=SampleSlot().eps * _BATCH / batch),
        mixer=Mixer(
            max_order=min(22, window),
            buckets=buckets,
            min_tokens=Mixer().min_tokens * buckets // Mixer().buckets,
        ),
    )


def audited_scale(window: int, num_layers: int, noise_tokens: int) -> Scale:
    """Return the same with windows, batches and chunks so small that an excerpt holds several.

    Every batch still has overlapping windows in flight, and the noise fills the tables.
    """
    window = min(window, _AUDITED_WINDOW)
    scale = contest_scale(window, num_layers, noise_tokens)
    rows = _AUDITED_WINDOWS_A_STEP
    return replace(
        scale,
        plain=replace(scale.plain, batch=_AUDITED_BATCH),
        script=replace(scale.script, batch=_AUDITED_BATCH),
        in_place=replace(scale.in_place, chunk=rows * window, rows=rows),
        slot=SampleSlot(),
    )


def stride_of(window: int) -> int:
    """Return the contest's stride, or a quarter of a short window."""
    return min(_STRIDE, max(1, window // 4))


def buckets_for(num_tokens: int) -> int:
    """Return the power of two whose load of tokens comes nearest to the contest's 1.85."""
    ideal = num_tokens * Mixer().buckets / _RANK_TOKENS
    return max(_MIN_BUCKETS, 1 << round(math.log2(max(1.0, ideal))))
