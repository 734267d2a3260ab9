"""What is audited, how hard, and the streams that the checks move about.

Shapes: N positions of a stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.audit.scorer import Nats, Scorer, Scores, Stream
from parbyte.base.settings import setting
from parbyte.score.ledger import Ledger
from parbyte.text.tokenizer import Tokenizer

MAX_STREAM = 4096
"""Longest stream of the checks that score one many times, unless window and chunk ask for more."""
_UNKNOWN_SPAN = 256
_NUM_LANES = 3
_WINDOWS = 3

Build = Callable[[bytes | None], bytes]
"""Held-out text, or None for no such text -> the artifact's bytes."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How hard to look."""

    seed: int = setting(0, low=0, doc="of every choice that the audit makes")
    positions: int = setting(12, low=1, doc="flipped positions, lengths of prefixes")
    sum_positions: int = setting(4, low=1, doc="positions whose counterfactual sum is taken")
    exact_vocab: int = setting(1024, low=1, doc="largest vocabulary that is summed exactly")
    likely: int = setting(64, low=1, doc="larger ones: likeliest tokens that are all priced")
    drawn: int = setting(64, low=2, doc="larger ones: how many of the others are priced")
    noise_tokens: int = setting(20_000, low=16, doc="of each noise; few for a slow scorer")
    repeat_nats: float = setting(1e-6, low=0.0, unit="nats", doc="allowed: same shapes")
    replay_nats: float = setting(1e-4, low=0.0, unit="nats", doc="allowed: other shapes")
    sum_error: float = setting(1e-3, low=0.0, doc="allowed: a sum of probabilities against 1")


@dataclass(kw_only=True)
class Subject:
    """A scorer with whatever belongs to it; what is missing is not tested, and the verdict says so.

    sample_N: short stream for the checks that score it many times. text_N: the whole text's.
    """

    name: str
    scorer: Scorer
    sample_N: Stream
    text_N: Stream | None = None
    text: bytes | None = None
    ledger: Ledger | None = None
    tokenizer: Tokenizer | None = None
    full_scorer: Scorer | None = None
    """The same law in the batching of the whole text; default: `scorer`."""
    precise: Scorer | None = None
    """The same law in float32, if `scorer` rounds to fewer bits: sums in another order round
    otherwise, and in bfloat16 that alone moves a price."""
    untrained: Scorer | None = None
    build: Build | None = None
    build_figures: Mapping[str, Any] = field(default_factory=dict)
    """How the artifact is built again: what T5 puts beside its hashes."""
    artifact_sha256: str | None = None
    _base: Scores | None = field(default=None, repr=False)

    def base(self) -> Scores:
        """Return the sample's prices; computed once."""
        if self._base is None:
            self._base = self.scorer.score(self.sample_N)
        return self._base

    def whole(self) -> tuple[Scorer, Stream]:
        """Return the scorer and stream of the whole text, or those of the sample."""
        if self.text_N is None:
            return self.scorer, self.sample_N
        return self.full_scorer or self.scorer, self.text_N


def cut_sample(scorer: Scorer, stream_N: Stream) -> Stream:
    """Return the first tokens of a text: three windows and some in every lane."""
    return stream_N[: sample_length(scorer)]


def sample_length(scorer: Scorer) -> int:
    """Return how many tokens show every border of a scorer, and do not end at one."""
    chunk, window = scorer.chunk or _UNKNOWN_SPAN, scorer.window or scorer.chunk or _UNKNOWN_SPAN
    span = max(window + 2 * chunk, _WINDOWS * chunk)
    return min(max(_NUM_LANES * (span + 5), 64), max(MAX_STREAM, 3 * chunk + 5))


def ordinary_ids(scorer: Scorer) -> NDArray[np.uint16]:
    """Return every id but BOS."""
    ids = np.arange(scorer.vocab_size).astype(np.uint16)
    return ids if scorer.bos_id is None else ids[ids != scorer.bos_id]


def noise_stream(
    scorer: Scorer, length: int, rng: np.random.Generator, weights: Nats | None = None
) -> Stream:
    """Return BOS, if there is one, and independent draws of ordinary ids."""
    ids = ordinary_ids(scorer)
    drawn_N = ids[rng.choice(len(ids), size=length, p=weights)]
    bos = [] if scorer.bos_id is None else [scorer.bos_id]
    return np.concatenate([np.array(bos, np.uint16), drawn_N])


def zipf_weights(num_ids: int) -> Nats:
    """Return the probabilities of Zipf's law, float64."""
    weights = 1.0 / np.arange(1, num_ids + 1)
    return weights / weights.sum()


def made_up_text(scorer: Scorer, rng: np.random.Generator) -> Stream:
    """Return a stream with structure, for a scorer that comes without text: a noisy repetition."""
    ids = ordinary_ids(scorer)
    length = sample_length(scorer)
    motif = noise_stream(scorer, max(8, length // 9), rng, zipf_weights(len(ids)))
    stream_N = np.tile(motif, length // len(motif) + 1)[:length]
    is_noise_N = (rng.random(length) < 0.2) & (stream_N != (-1 if len(motif) == 0 else motif[0]))
    stream_N[is_noise_N] = ids[rng.integers(len(ids), size=int(is_noise_N.sum()))]
    return stream_N


def border_positions(
    scorer: Scorer, stream_N: Stream, count: int, rng: np.random.Generator
) -> list[int]:
    """Return positions to try: around borders of chunks, windows, lanes, documents; some drawn."""
    order_N = scorer.order(stream_N)
    is_ordinary_N = order_N >= 0
    if scorer.bos_id is not None:
        is_ordinary_N &= stream_N != scorer.bos_id
    ordinary = np.flatnonzero(is_ordinary_N)
    near = [p for p in _border_moments(scorer, stream_N, order_N) if is_ordinary_N[p]]
    near = list(dict.fromkeys(near))
    if len(near) > count - count // 4:
        keep = rng.choice(len(near), size=max(1, count - count // 4), replace=False)
        near = [near[i] for i in sorted(keep)]
    more = rng.choice(ordinary, size=min(len(ordinary), max(0, count - len(near) - 1)))
    return sorted({*near, *(int(p) for p in more), int(ordinary[-1])})


def _border_moments(scorer: Scorer, stream_N: Stream, order_N: NDArray[np.int64]) -> list[int]:
    """Return the positions just before and behind each border."""
    places: list[int] = []
    for span in {scorer.chunk, scorer.window} - {0}:
        for moment in (span - 1, span, 2 * span - 1, 2 * span):
            places += np.flatnonzero(order_N == moment).tolist()
    starts = np.flatnonzero(order_N <= 0)
    if scorer.bos_id is not None:
        starts = np.union1d(starts, np.flatnonzero(stream_N == scorer.bos_id))
    for start in starts[:8].tolist():
        places += [start - 1, start + 1]
    return [place for place in places if 0 <= place < len(stream_N)]
