"""What each stage of a predictor's stack is worth: bits per byte before and after it, per token.

One walk over the text prices every token by every stage, so the stages' numbers belong together.
Shapes: S stages, the network first; B lanes, T positions, N tokens of a passage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.base.units import bits_per_byte, nats_to_bits
from parbyte.predict.probe import Probe
from parbyte.text.lanes import Lanes
from parbyte.text.tokenizer import Tokenizer

PASSAGE_TOKENS = 400


@dataclass(frozen=True)
class StageScore:
    """One stage: the text's rate from its rows, its own seconds, the bytes that it holds."""

    name: str
    bpb: float
    seconds: float
    state_bytes: int


@dataclass(frozen=True)
class Passage:
    """Some tokens in a row, as text, and the bits of each of them by each stage."""

    pieces: tuple[str, ...]
    bits_SN: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """All stages, the lowest first, over the whole text and over one passage of it."""

    stages: tuple[StageScore, ...]
    passage: Passage

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what a stage gained is what it took off the rate below it."""
        return {
            "stages": [vars(stage) for stage in self.stages],
            "pieces": list(self.passage.pieces),
            "bits": [[round(bits, 3) for bits in row] for row in self.passage.bits_SN],
        }


class Explainer:
    """Takes what the probes of a stack saw, frame by frame."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = probes
        self._nats_S = np.zeros(len(probes))
        self._passage = Passage((), ())

    def take(self, lanes: Lanes, tokenizer: Tokenizer) -> None:
        """Add a frame that has just been measured; the first one lends its passage."""
        walks = [probe.take_nats() for probe in self._probes]
        for stage, nats_BT in enumerate(walks):
            for row_T, length in zip(nats_BT, lanes.lengths, strict=True):
                self._nats_S[stage] += row_T[:length].sum(dtype=np.float64)
        if not self._passage.pieces:
            self._passage = _passage(walks, lanes, tokenizer)

    def explanation(self, num_bytes: int) -> Explanation:
        """Return the stages' scores over a text of so many bytes."""
        below_s = [0.0, *(probe.seconds for probe in self._probes)]
        stages = tuple(
            StageScore(
                name=probe.name,
                bpb=bits_per_byte(float(nats), num_bytes),
                seconds=probe.seconds - seconds,
                state_bytes=probe.state_bytes,
            )
            for probe, nats, seconds in zip(self._probes, self._nats_S, below_s[:-1], strict=True)
        )
        return Explanation(stages, self._passage)


def _passage(walks: Sequence[NDArray[np.float32]], lanes: Lanes, tokenizer: Tokenizer) -> Passage:
    """Return the middle of the first lane: by then the stages have learned something."""
    ids = lanes.tokens[0]
    start = max(0, (len(ids) - PASSAGE_TOKENS) // 2)
    place = slice(start, start + PASSAGE_TOKENS)
    text = tokenizer.decode(ids[place])
    ends = np.cumsum(tokenizer.byte_counts(ids[place])).tolist()
    starts = [0, *ends[:-1]]
    pieces = tuple(text[a:b].decode(errors="replace") for a, b in zip(starts, ends, strict=True))
    bits_SN = tuple(tuple(nats_to_bits(float(n)) for n in walk[0, place]) for walk in walks)
    return Passage(pieces, bits_SN)
