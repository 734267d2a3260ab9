"""The last stage of a stack: probabilities corrected by experience; the law: kernels.calibration.

Shapes: B lanes, T positions, V vocab, K ranks, N knots.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.calibration import KNOTS, LIMIT, RECENT, Calibrator, calibrate_
from parbyte.kernels.portable.net import sigmoid
from parbyte.predict.expert_config import SseConfig
from parbyte.predict.predictor import Predictor
from parbyte.predict.row_stage import Floats, Ints, RowStage


class SsePredictor(RowStage):
    """Rows whose likeliest tokens are as likely as tokens of that kind have been."""

    def __init__(self, inner: Predictor, config: SseConfig, bos_id: int) -> None:
        self._config, self._bos_id = config, bos_id
        super().__init__(inner)

    def _open(self, num_lanes: int) -> None:
        depth = min(self._config.depth, self.vocab_size - 1)
        knots_N = np.linspace(-LIMIT, LIMIT, KNOTS).astype(np.float32)
        map_KRN = np.tile(sigmoid(knots_N).astype(np.float64), (depth, RECENT, 1))
        self._state = Calibrator(
            map_KRN=map_KRN,
            moves_KRN=np.zeros_like(map_KRN),
            uses_KRN=np.zeros_like(map_KRN),
            tokens_BK=np.zeros((num_lanes, depth), np.int64),
            knots_BK=np.zeros((num_lanes, depth), np.int64),
            parts_BK=np.zeros((num_lanes, depth)),
            recent_B=np.zeros(num_lanes, np.int64),
            last_B=np.full(num_lanes, self._bos_id),
            rate=self._config.rate,
            share=self._config.share,
            bos_id=self._bos_id,
        )

    def _predict(self, rows_B1V: Floats) -> Floats:
        out_B1V = np.empty_like(rows_B1V)
        calibrate_(self._state, np.empty((self._num_lanes, 0), np.int64), rows_B1V, out_B1V, 1)
        return out_B1V

    def _learn(self, tokens_B1: Ints) -> None:
        no_rows = np.empty((self._num_lanes, 0, self.vocab_size), np.float32)
        calibrate_(self._state, tokens_B1, no_rows, no_rows, 1)

    def _walk(self, tokens_BT: Ints, rows_BTV: Floats) -> Floats:
        out_BTV = np.empty_like(rows_BTV)
        calibrate_(self._state, tokens_BT, rows_BTV, out_BTV, tokens_BT.shape[1])
        return out_BTV

    def _kept(self) -> list[NDArray[Any]]:
        return [self._state.map_KRN, self._state.recent_B, self._state.last_B]
