"""A model of the scored text's bytes, and the row below: multiplied.

The laws: kernels.portable.byte_counts, byte_trie, byte_mixing. The bytes of a nibble are not seen.
Source: PR 1835's idea, in a construction that sums to one. Shapes: B lanes, T positions, V vocab.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.byte_counts import WRITES
from parbyte.kernels.portable.byte_mixing import (
    ENTROPY_BINS,
    Speller,
    forget_bytes_,
    walk_bytes_,
)
from parbyte.kernels.portable.byte_trie import build_trie, new_scratch
from parbyte.kernels.portable.counts import NONE, has_room, new_table, undo_
from parbyte.predict.count_memory import HISTORY_SHARE, too_small
from parbyte.predict.expert_config import BytesConfig
from parbyte.predict.predictor import Predictor
from parbyte.predict.row_stage import Floats, Ints, RowStage
from parbyte.text.tokenizer import Tokenizer

_PIECE = 256
"""Positions of a walk between two looks at the undo log's room."""


class BytesPredictor(RowStage):
    """Rows that also know how the text spells."""

    def __init__(self, inner: Predictor, config: BytesConfig, tokenizer: Tokenizer) -> None:
        self._config, self._bos_id = config, tokenizer.bos_id
        pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self._pieces = np.frombuffer(b"".join(pieces), np.uint8)
        self._ends_V = np.cumsum([len(piece) for piece in pieces])
        self._asks_V, self._takes_V = tokenizer.implied_spaces()
        self._trie = build_trie(pieces, self._takes_V)
        super().__init__(inner)

    def count_bytes(self) -> int:
        """Return the bytes that counts and history take now."""
        return self._speller.cells.nbytes + self._speller.history.nbytes if self._num_lanes else 0

    def _open(self, num_lanes: int) -> None:
        config, vocab_size = self._config, self.vocab_size
        history = _history_length(config, num_lanes, self.chunk)
        num_rows = 3 + ENTROPY_BINS + config.order
        weights_R2 = np.zeros((num_rows, 2))
        weights_R2[0] = 1.0, config.start_weight
        self._speller = Speller(
            trie=self._trie,
            scratch=new_scratch(self._trie, config.order),
            pieces=self._pieces,
            ends_V=self._ends_V,
            takes_V=self._takes_V,
            asks_V=self._asks_V,
            cells=new_table(config.memory // 4 - history),
            undo=np.zeros((1, 2), np.int64),
            history=np.full(history, self._bos_id, np.int32),
            length=np.zeros(1, np.int64),
            recent_BK=np.full((num_lanes, config.order), NONE),
            last_B=np.full(num_lanes, self._bos_id),
            weights_R2=weights_R2,
            squares_R2=np.ones_like(weights_R2),
            inputs_B2V=np.zeros((num_lanes, 2, vocab_size), np.float32),
            expected_B2=np.zeros((num_lanes, 2)),
            picked_B3=np.zeros((num_lanes, 3), np.int64),
            discount=config.discount,
            threshold=config.threshold,
            rate=config.rate,
            bos_id=self._bos_id,
        )

    def _predict(self, rows_B1V: Floats) -> Floats:
        out_B1V = np.empty_like(rows_B1V)
        no_tokens = np.empty((self._num_lanes, 0), np.int64)
        walk_bytes_(self._speller, no_tokens, rows_B1V, out_B1V, 0, 1)
        return out_B1V

    def _learn(self, tokens_B1: Ints) -> None:
        no_rows = np.empty((self._num_lanes, 0, self.vocab_size), np.float32)
        self._make_room(tokens_B1)
        walk_bytes_(self._speller, tokens_B1, no_rows, no_rows, 0, 1)

    def _walk(self, tokens_BT: Ints, rows_BTV: Floats) -> Floats:
        out_BTV, length = np.empty_like(rows_BTV), tokens_BT.shape[1]
        for start in range(0, length, _PIECE):
            stop = min(start + _PIECE, length)
            self._make_room(tokens_BT[:, start:stop])
            walk_bytes_(self._speller, tokens_BT, rows_BTV, out_BTV, start, stop)
        return out_BTV

    def _undo(self) -> None:
        undo_(self._speller.cells, self._speller.undo)

    def _keep(self) -> None:
        speller = self._speller
        speller.undo[0, 0] = 0
        next_end = speller.length[0] + self._num_lanes * self.chunk
        if not has_room(speller.cells, 0, 0.75) or next_end > len(speller.history):
            self._make_room(np.arange(self.vocab_size).repeat(self._num_lanes))
            forget_bytes_(self._speller)

    def _kept(self) -> list[NDArray[Any]]:
        speller = self._speller
        weights = [speller.weights_R2, speller.squares_R2]
        return [*weights, speller.recent_BK, speller.last_B, speller.length]

    def _make_room(self, tokens: Ints) -> None:
        """Let the undo log hold what so many tokens can change."""
        used = int(self._speller.undo[0, 0]) + 1
        num_bytes = int(np.diff(self._ends_V, prepend=0)[tokens].sum()) + tokens.size
        most = used + num_bytes * (self._config.order + 1) * WRITES
        if most > len(self._speller.undo):
            longer = np.empty((2 * most, 2), np.int64)
            longer[:used] = self._speller.undo[:used]
            self._speller = self._speller._replace(undo=longer)


def _history_length(config: BytesConfig, num_lanes: int, chunk: int) -> int:
    """Return how many tokens are kept to learn from anew; ResourceError if memory is too small."""
    history = max(config.memory // HISTORY_SHARE // 4, 2 * num_lanes * (chunk + 1))
    if 8 * history > config.memory:
        sizes = {"least": 8 * history, "memory": config.memory}
        lower = ("codec.lanes", "predict.stride")
        raise too_small(config.kind, num_lanes, chunk, **sizes, lower=lower)
    return history
