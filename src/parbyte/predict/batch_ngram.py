"""The n-gram posterior of counts that are learned chunk by chunk, all lanes and positions at once.

The law of kernels.portable.posterior, but for when it counts: row t's contexts are of tokens :t as
ever, their counts are those of the chunks that were observed. So all rows of a chunk are made
together, on the device of the rows below. Shapes: B lanes, T positions, V vocab, N rows, A contexts
of one order, M their followers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.kernels.batch_counts import (
    COUNT,
    FULL_SHARE,
    KINDS,
    LENGTH,
    POOLED_BYTES,
    SIZE,
    SLOT_BYTES,
    Counts,
    count_bytes,
    followers,
    most_keys,
    new_counts,
    observe_,
    recount_,
    walk,
    write_ahead_,
)
from parbyte.predict.count_memory import HISTORY_SHARE, prior_too_long, spread, too_small
from parbyte.predict.expert_config import NgramConfig
from parbyte.predict.predictor import Predictor

_PIECE = 1 << 20
"""Elements of the rows that are made at a time, as each context may have V followers."""
_SMALLEST_SHARE = 1e-15
"""As kernels.portable.evidence has it; to import that loads numba, which torch does not need."""


class BatchNgramPredictor(Predictor):
    """Any predictor's rows under the posterior of all contexts of the observed chunks."""

    def __init__(
        self,
        inner: Predictor,
        config: NgramConfig,
        bos_id: int,
        prior_N: NDArray[np.uint16] | None = None,
    ) -> None:
        """Stand on `inner`; prior_N: tokens of the artifact that are counted before all others."""
        self.vocab_size, self.chunk = inner.vocab_size, inner.chunk
        self._inner, self._config, self._bos_id = inner, config, bos_id
        self._prior_N = np.empty(0, np.uint16) if prior_N is None else prior_N
        self._counts: Counts | None = None
        self.restore()

    def count_bytes(self) -> int:
        """Return the bytes that counts and history take now."""
        return count_bytes(self._counts) if self._counts is not None else 0

    @torch.inference_mode()
    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        """See Predictor. All rows at once."""
        return self._posterior(self._inner.log_probs(tokens_BT), tokens_BT, first=0)

    @torch.inference_mode()
    def step(self, last_B: Tensor) -> Tensor:
        """See Predictor. One row a lane."""
        assert len(self._pending) < self.chunk, "observe() comes after `chunk` steps"
        row_B1V = self._inner.step(last_B)[:, None]
        self._pending = (*self._pending, last_B.to(row_B1V.device))
        # The first of them was observed already.
        tokens_BT = torch.stack(self._pending, dim=1)[:, 1:]
        return self._posterior(row_B1V, tokens_BT, first=tokens_BT.shape[1])[:, 0]

    @torch.inference_mode()
    def observe(self, chunk_BT: Tensor) -> None:
        """See Predictor. Counts the chunk; may forget the older half of the text."""
        if not self._is_open:
            self.log_probs(chunk_BT[:, :1])  # rows tell the device
        self._inner.observe(chunk_BT)
        super().observe(chunk_BT)
        assert self._counts is not None
        observe_(self._counts, chunk_BT.to(self._counts.keys_S.device), self.chunk)

    def restore(self) -> None:
        """See Predictor. Forgets all that was counted; the next row makes new counts."""
        super().restore()
        self._inner.restore()
        self._is_open = False

    def _posterior(self, below_BTV: Tensor, tokens_BT: Tensor, *, first: int) -> Tensor:
        """Return the rows from a position of the chunk on; tokens_BT: all that stand before."""
        lanes, length, vocab = below_BTV.shape
        if self._counts is None or not self._is_open:
            self._counts = None  # lets go of the memory before it is taken again
            self._counts, self._is_open = self._open(lanes, below_BTV.device), True
        counts, device = self._counts, below_BTV.device
        assert counts.num_lanes == lanes, "restore() comes before another number of lanes"
        write_ahead_(counts, tokens_BT.to(device))
        start = int(counts.marks[LENGTH]) + first * lanes
        places_TB = torch.arange(start, start + length * lanes, device=device).view(length, lanes)
        places_N, below_NV = places_TB.T.reshape(-1), below_BTV.reshape(-1, vocab)
        size = max(1, _PIECE // vocab)
        pieces = zip(places_N.split(size), below_NV.split(size), strict=True)
        rows_NV = torch.cat([posterior(counts, self._config, *piece) for piece in pieces])
        return rows_NV.view(below_BTV.shape)

    def _open(self, lanes: int, device: torch.device) -> Counts:
        """Return counts of the prior text. Raises ResourceError if the memory is too small."""
        config, prior_BT = self._config, spread(self._prior_N, lanes, self._bos_id)
        num_slots, num_pooled, num_tokens = _sizes(config, lanes, self.chunk, prior_BT.size)
        counts = new_counts(
            num_slots,
            num_pooled,
            num_tokens,
            order=config.order,
            vocab_size=self.vocab_size,
            num_lanes=lanes,
            bos_id=self._bos_id,
            device=device,
        )
        write_ahead_(counts, torch.from_numpy(prior_BT).to(device))
        counts.marks[LENGTH] += prior_BT.size
        if not recount_(counts, self.chunk):
            raise prior_too_long(config.kind)
        return counts


def _sizes(config: NgramConfig, lanes: int, chunk: int, prior_length: int) -> tuple[int, int, int]:
    """Return how many slots, pool entries and tokens of history the memory holds.

    Raises ResourceError if half of it may not hold all keys of one chunk.
    """
    half, each = FULL_SHARE / 2, SLOT_BYTES + POOLED_BYTES
    least_slots = 1 << int(most_keys(config.order, lanes * chunk) / half).bit_length()
    least_history = 4 * (2 * lanes * (chunk + 1) + prior_length)
    history = max(config.memory // HISTORY_SHARE, least_history)
    left = config.memory - history - SLOT_BYTES
    if left < each * least_slots:
        least = each * least_slots + SLOT_BYTES
        least = max(least + least_history, least * HISTORY_SHARE // (HISTORY_SHARE - 1) + 1)
        lower = ("order", "codec.lanes", "predict.stride", "pack.prior_bytes")
        sizes = {"least": least, "memory": config.memory}
        raise too_small(config.kind, lanes, chunk, **sizes, lower=lower)
    num_slots = 1 << (left // each).bit_length() - 1
    return num_slots, (left - num_slots * SLOT_BYTES) // POOLED_BYTES, history // 4


def posterior(counts: Counts, config: NgramConfig, places_N: Tensor, below_NV: Tensor) -> Tensor:
    """Return the rows float32[N, V] at some places; below_NV: log p.

    In one order each row has each token once, so that nothing depends on an order of adding.
    """
    more_NV = torch.zeros_like(below_NV)
    kappa_N = torch.ones_like(places_N, dtype=torch.float64)
    for order, rows_A, nodes_A in walk(counts, places_N):
        if order < config.lowest:
            continue
        uses_longer = config.method == "kneser-ney" and order < config.order
        owners_M, tokens_M, seen_M = followers(counts, nodes_A, KINDS if uses_longer else COUNT)
        kinds_A = counts.cells[SIZE, nodes_A].double()
        left_A, discount = _escape(config, kinds_A)
        scale_A = 1.0 / (left_A * kappa_N[rows_A])
        gains_M = (seen_M - discount) * scale_A[owners_M]
        more_NV[rows_A[owners_M], tokens_M] += gains_M.to(more_NV.dtype)
        seen_A = torch.zeros_like(nodes_A).scatter_add_(0, owners_M, seen_M.long())
        share_A = left_A / (left_A + (seen_A - discount * kinds_A))
        kappa_N[rows_A] = (kappa_N[rows_A] * share_A).clamp(min=_SMALLEST_SHARE)
    sums_NV = torch.logaddexp(below_NV, more_NV.log())
    return sums_NV.double().log_softmax(-1).to(below_NV.dtype)


def _escape(config: NgramConfig, kinds_A: Tensor) -> tuple[Tensor, float]:
    """Return what each context leaves to the shorter one, and what is taken from each count."""
    if config.method == "dirichlet":
        return torch.full_like(kinds_A, config.concentration), 0.0
    if config.method == "witten-bell":
        return kinds_A, 0.0
    discount = 0.5 if config.method == "ppmd" else config.discount
    return discount * kinds_A, discount
