"""The window geometry of the contest's scripts, with the error at its end.

Window w (0, S, 2S, ...) reads inputs x[w .. w+n-1] and prices x[w+1 .. w+n], n = min(L, T - w).
Scored are all of the first window, and the last S of each other one. The last L / S - 1 windows are
short, and so the same last S tokens are scored again and again (C4).
Shapes: N tokens, T = N - 1 of them priced, B windows of a batch, L window, M scored places, D
model_dim, V vocab.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from parbyte.base.settings import require, setting
from parbyte.claims.claimed import Base, Claimed, joined, nats_and_entropy


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a script walks over the text; the defaults are PR 1430's."""

    window: int = setting(2048, low=2, unit="tokens", doc="L, the inputs of one window")
    stride: int = setting(64, low=1, unit="tokens", doc="S, between two windows")
    batch: int = setting(128, low=1, doc="B, windows of one forward, of one fit, of one update")
    ranks: int = setting(1, low=1, doc="spans of windows that share nothing; the contest has 8")
    repeats_tail: bool = setting(True, doc="score the last S tokens again in each short window")

    def __post_init__(self) -> None:
        require(
            self.stride <= self.window,
            "stride",
            got=self.stride,
            want=f"at most window ({self.window})",
        )

    def starts(self, num_tokens: int) -> range:
        """Return the first input of every window over `num_tokens` tokens."""
        num_priced = num_tokens - 1
        stop = num_priced if self.repeats_tail else num_priced - self.window + self.stride
        return range(0, min(num_priced, max(stop, 1)), self.stride)

    def first_column(self, start: int, num_tokens: int) -> int:
        """Return the first scored column of the window that begins at `start`."""
        end = min(self.window, num_tokens - 1 - start) if self.repeats_tail else self.window
        return 0 if start == 0 else max(end - self.stride, 0)

    def batches(self, stream_N: Tensor) -> Iterator["Batch"]:
        """Cut a stream, int64[N], into batches of consecutive windows, rank after rank."""
        starts = self.starts(len(stream_N))
        bounds = [len(starts) * rank // self.ranks for rank in range(self.ranks + 1)]
        for rank, (first, stop) in enumerate(pairwise(bounds)):
            yield from self.batches_of(stream_N, starts[first:stop], rank)

    def batches_of(
        self, stream_N: Tensor, starts: Sequence[int], rank: int = 0
    ) -> Iterator["Batch"]:
        """Cut the windows that begin at `starts` into batches."""
        for first in range(0, len(starts), self.batch):
            yield self._cut(stream_N, starts[first : first + self.batch], rank)

    def _cut(self, stream_N: Tensor, starts: Sequence[int], rank: int) -> "Batch":
        num_tokens, device = len(stream_N), stream_N.device
        columns = [self.first_column(start, num_tokens) for start in starts]
        starts_B, first_B = torch.tensor([list(starts), columns], device=device)
        lengths_B = (num_tokens - 1 - starts_B).clamp(max=self.window)
        column_L = torch.arange(self.window, device=device)
        is_read_BL = column_L < lengths_B[:, None]
        places_BL = (starts_B[:, None] + column_L).clamp(max=num_tokens - 2)
        row_M, column_M = torch.where(is_read_BL & (column_L >= first_B[:, None]))
        return Batch(
            rank=rank,
            inputs_BL=stream_N[places_BL] * is_read_BL,
            answers_BL=stream_N[places_BL + 1] * is_read_BL,
            starts_B=starts_B,
            lengths_B=lengths_B,
            first_B=first_B,
            row_M=row_M,
            column_M=column_M,
            positions_M=starts_B[row_M] + column_M + 1,
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows that are run, fitted and scored together.

    inputs_BL, answers_BL: int64, zeros behind a short window's end, as in the scripts. starts_B:
    the first input. lengths_B: columns that are read. first_B: the first scored column. row_M,
    column_M: the scored places. positions_M: where the priced tokens stand in the stream.
    """

    rank: int
    inputs_BL: Tensor
    answers_BL: Tensor
    starts_B: Tensor
    lengths_B: Tensor
    first_B: Tensor
    row_M: Tensor
    column_M: Tensor
    positions_M: Tensor

    @property
    def answers_M(self) -> Tensor:
        """The tokens that are priced."""
        return self.answers_BL[self.row_M, self.column_M]


Fit = Callable[[Batch, Tensor], Tensor]
"""A batch and its hidden states [B, L, D] -> logits [M, V] of its scored places."""


def claim(model: Base, batches: Iterable[Batch], fit: Fit) -> Claimed:
    """Score batch by batch through a fit."""
    parts = []
    for batch in batches:
        with torch.no_grad():
            hidden_BLD = model.hidden(batch.inputs_BL)
        nats_M, entropy_M = nats_and_entropy(fit(batch, hidden_BLD), batch.answers_M)
        parts.append(Claimed(nats_M=nats_M, positions_M=batch.positions_M, entropy_M=entropy_M))
    return joined(parts)


def sliding(model: Base, stream_N: Tensor, windows: Windows) -> Claimed:
    """Score by sliding windows and nothing else: an honest number, but for the repeated tail.

    Breaks C4 with `repeats_tail` (T8), nothing without. Source: card 2; PR 1430's diagnostic pass.
    """
    return sliding_over(model, windows.batches(stream_N))


def sliding_over(model: Base, batches: Iterable[Batch]) -> Claimed:
    """Score the given batches by `sliding`."""

    @torch.no_grad()
    def fit(batch: Batch, hidden_BLD: Tensor) -> Tensor:
        return model.logits(hidden_BLD[batch.row_M, batch.column_M])

    return claim(model, batches, fit)
