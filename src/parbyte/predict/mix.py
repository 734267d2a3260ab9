"""Experts that learn from the scored text, and the row below: mixed, tilted, or a posterior.

The laws: kernels.portable.counts, evidence, geometric, linear, tilt, posterior. Shapes: B lanes, T
positions, V vocab, I inputs, R rows of weights, Q states.
"""

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.counts import (
    MAX_ORDER,
    MOST_CELLS,
    MOST_WRITES,
    forget_,
    has_room,
    learn_history_,
    new_table,
    undo_,
)
from parbyte.kernels.portable.evidence import GROUPS, METHODS, STATES, Evidence, Experts
from parbyte.kernels.portable.geometric import GATED, GEOMETRIC, LINEAR, POSTERIOR, TILT, Mixer
from parbyte.kernels.portable.linear import NUM_EXPERTS
from parbyte.kernels.portable.mixing import SET_ROWS, walk_
from parbyte.predict.count_memory import HISTORY_SHARE, prior_too_long, spread, too_small
from parbyte.predict.expert_config import (
    SETS,
    MatchExpert,
    MixConfig,
    NgramConfig,
    NgramExpert,
    RecentExpert,
    TiltConfig,
)
from parbyte.predict.predictor import Predictor
from parbyte.predict.row_stage import RowStage

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Stage = MixConfig | NgramConfig | TiltConfig
T = TypeVar("T")

_MODES = {"geometric": GEOMETRIC, "linear": LINEAR, "gated": GATED}
_PIECE = 256
"""Positions of a walk between two looks at the undo log's room."""


class MixPredictor(RowStage):
    """Experts and the row below in one mixture, its weights learned as it goes.

    An n-gram posterior and a tilt are laws of their own over the same counts, without weights.
    """

    def __init__(
        self,
        inner: Predictor,
        config: Stage,
        bos_id: int,
        prior_N: NDArray[np.uint16] | None = None,
    ) -> None:
        """Stand on `inner`; prior_N: tokens of the artifact that are counted before all others."""
        self._mix = config if isinstance(config, MixConfig) else as_mix(config)
        self._stage = config
        self._prior_N = np.empty(0, np.uint16) if prior_N is None else prior_N
        self._bos_id = bos_id
        super().__init__(inner)

    def count_bytes(self) -> int:
        """Return the bytes that counts and history take now."""
        return self._experts.cells.nbytes + self._experts.history.nbytes if self._num_lanes else 0

    def _open(self, num_lanes: int) -> None:
        shape = (num_lanes, self.vocab_size)
        prior_BT = spread(self._prior_N, num_lanes, self._bos_id)
        self._experts = new_experts(self._mix, *shape, self.chunk, self._bos_id, prior_BT.size)
        self._make_room(1)
        _read_prior_(self._experts, prior_BT, self._mix.kind)
        num_sources = len(self._experts.orders) * GROUPS + 1
        self._evidence = _new_evidence(num_sources, *shape)
        self._mixer = _new_mixer(self._mix, self._stage, num_sources, *shape)

    def _predict(self, rows_B1V: Floats) -> Floats:
        out_B1V = np.empty_like(rows_B1V)
        no_tokens = np.empty((self._num_lanes, 0), np.int64)
        walk_(self._mixer, self._experts, self._evidence, no_tokens, rows_B1V, out_B1V, 0, 1)
        return out_B1V

    def _learn(self, tokens_B1: Ints) -> None:
        no_rows = np.empty((self._num_lanes, 0, self.vocab_size), np.float32)
        self._make_room(1)
        walk_(self._mixer, self._experts, self._evidence, tokens_B1, no_rows, no_rows, 0, 1)

    def _walk(self, tokens_BT: Ints, rows_BTV: Floats) -> Floats:
        out_BTV, length = np.empty_like(rows_BTV), tokens_BT.shape[1]
        for start in range(0, length, _PIECE):
            stop = min(start + _PIECE, length)
            self._make_room(stop - start)
            state = self._mixer, self._experts, self._evidence
            walk_(*state, tokens_BT, rows_BTV, out_BTV, start, stop)
        return out_BTV

    def _undo(self) -> None:
        undo_(self._experts.cells, self._experts.undo)

    def _keep(self) -> None:
        self._experts.undo[0, 0] = 0
        self._make_room(1)
        make_room_(self._experts, self.chunk)

    def _kept(self) -> list[NDArray[Any]]:
        mixer, experts = self._mixer, self._experts
        weights = [mixer.weights_RI, mixer.squares_RI, mixer.bonus_Q, mixer.bonus_squares_Q]
        return [
            *weights,
            experts.recent_V,
            experts.recent,
            experts.hits,
            experts.tries,
            experts.length,
            experts.ages_B,
        ]

    def _make_room(self, num_positions: int) -> None:
        """Let the undo log hold what so many positions can change."""
        experts, used = self._experts, int(self._experts.undo[0, 0]) + 1
        tokens = num_positions * experts.num_lanes
        most = used + tokens * len(experts.orders) * MOST_WRITES
        if most > len(experts.undo):
            longer = np.empty((2 * most, 2), np.int64)
            longer[:used] = experts.undo[:used]
            self._experts = experts._replace(undo=longer)


def _read_prior_(experts: Experts, prior_BT: NDArray[np.int32], kind: str) -> None:
    """Count a text that every decoder has before the first token.

    Raises ResourceError if it takes more than half of the memory.
    """
    lanes = experts.num_lanes
    stop = lanes + prior_BT.size
    experts.history[lanes:stop] = prior_BT.T.ravel()
    experts.length[0] = learn_history_(
        experts.cells,
        experts.undo,
        experts.history,
        stop,
        lanes,
        experts.bos_id,
        experts.orders,
        experts.skips,
    )
    if experts.length[0] < stop:
        raise prior_too_long(kind)


def make_room_(experts: Experts, num_positions: int) -> None:
    """Forget the older half of the text unless so many more positions fit into the memory."""
    next_end = experts.length[0] + experts.num_lanes * num_positions
    if next_end <= len(experts.history) and has_room(experts.cells, 0, 0.75):
        return
    experts.length[0] = forget_(
        experts.cells,
        experts.undo,
        experts.history,
        experts.length[0],
        experts.num_lanes,
        experts.bos_id,
        experts.orders,
        experts.skips,
    )


def as_mix(config: NgramConfig | TiltConfig) -> MixConfig:
    """Return the mixture that stands for an n-gram posterior, or holds the counts of a tilt."""
    expert = NgramExpert(order=config.order, lowest=config.lowest)
    if isinstance(config, NgramConfig):
        expert = replace(
            expert,
            method=config.method,
            concentration=config.concentration,
            discount=config.discount,
        )
    return MixConfig(experts=(expert,), memory=config.memory)


def _one(config: MixConfig, kind: type[T]) -> T | None:
    return next((expert for expert in config.experts if isinstance(expert, kind)), None)


def new_experts(
    config: MixConfig,
    num_lanes: int,
    vocab_size: int,
    chunk: int,
    bos_id: int,
    prior_length: int = 0,
) -> Experts:
    """Return experts that have seen nothing, in the memory that they may take.

    prior_length: tokens that the history is to hold beside those between two looks.
    """
    ngrams = [expert for expert in config.experts if isinstance(expert, NgramExpert)]
    match, recent = _one(config, MatchExpert), _one(config, RecentExpert)
    history = max(config.memory // HISTORY_SHARE // 4, 2 * num_lanes * (chunk + 1) + prior_length)
    least = max(8 * history, 16 * MOST_CELLS * num_lanes * len(ngrams))
    if least > config.memory:
        lower = ("codec.lanes", "predict.stride", "pack.prior_bytes")
        sizes = {"least": least, "memory": config.memory}
        raise too_small(config.kind, num_lanes, chunk, **sizes, lower=lower)
    strengths = [e.discount if e.method == "kneser-ney" else e.concentration for e in ngrams]
    return Experts(
        cells=new_table(config.memory // 4 - history),
        undo=np.zeros((1, 2), np.int64),
        history=np.full(history, bos_id, np.int32),
        length=np.array([num_lanes]),
        ages_B=np.zeros(num_lanes, np.int64),
        orders=np.array([expert.order for expert in ngrams]),
        skips=np.array([expert.skip for expert in ngrams]),
        methods=np.array([METHODS.index(expert.method) for expert in ngrams]),
        strengths=np.array(strengths),
        lowest=np.array([expert.lowest for expert in ngrams]),
        match=match.min_length if match else 0,
        hits=np.zeros(MAX_ORDER + 1),
        tries=np.zeros(MAX_ORDER + 1),
        recent_V=np.zeros(vocab_size, np.float32),
        recent=np.array([1.0, 0.0]),
        fading=1.0 - 1.0 / recent.span if recent else 0.0,
        concentration=recent.concentration if recent else 1.0,
        num_lanes=num_lanes,
        bos_id=bos_id,
    )


def _new_evidence(num_sources: int, num_lanes: int, vocab_size: int) -> Evidence:
    shape = (num_lanes, vocab_size)
    return Evidence(
        tokens_BC=np.zeros(shape, np.int32),
        slots_BV=np.full(shape, -1, np.int32),
        ratios_BC=np.zeros(shape, np.float32),
        inputs_BCI=np.zeros((*shape, 2 + num_sources), np.float32),
        states_BCK=np.zeros((*shape, num_sources), np.int32),
        recent_BV=np.zeros(shape, np.float32),
        facts_B4=np.zeros((num_lanes, 4), np.int64),
        shares_B3=np.ones((num_lanes, 3)),
        path_BK=np.zeros((num_lanes, MAX_ORDER + 1), np.int64),
    )


def _new_mixer(
    config: MixConfig, stage: Stage, num_sources: int, num_lanes: int, vocab_size: int
) -> Mixer:
    """Return what makes rows of the evidence. stage: as the recipe has it."""
    tilt = stage if isinstance(stage, TiltConfig) else None
    mode = POSTERIOR if isinstance(stage, NgramConfig) else TILT if tilt else _MODES[config.mode]
    sets = [SETS.index(name) for name in config.sets]
    starts = np.cumsum([1, *(SET_ROWS[kind] for kind in sets)])
    weights_RI = _first_weights(config, int(starts[-1]), 2 + num_sources)
    num_states = num_sources * STATES
    return Mixer(
        mode=mode,
        weights_RI=weights_RI,
        squares_RI=np.ones_like(weights_RI),
        bonus_Q=np.zeros(num_states, np.float32),
        bonus_squares_Q=np.ones(num_states, np.float32),
        rate=config.rate,
        bonus_rate=config.bonus_rate,
        sets=np.array(sets, np.int64),
        starts=starts,
        picked_BP=np.zeros((num_lanes, 1 + len(sets)), np.int64),
        expected_BI=np.zeros((num_lanes, 2 + num_sources)),
        expected_BQ=np.zeros((num_lanes, num_states)),
        below_BV=np.zeros((num_lanes, vocab_size), np.float32),
        slopes_RI=np.zeros(weights_RI.shape),
        slopes_Q=np.zeros(num_states),
        shares_BE=np.zeros((num_lanes, NUM_EXPERTS)),
        tilt=np.array([tilt.beta, tilt.confidence, tilt.min_count] if tilt else [0.0, 0.0, 0.0]),
    )


def _first_weights(config: MixConfig, num_rows: int, num_inputs: int) -> Floats:
    """Return float32[R, I]; a sum's first columns are the row below and the three experts."""
    weights_RI = np.zeros((num_rows, num_inputs), np.float32)
    if config.mode == "geometric":
        weights_RI[0] = config.start_weight
        weights_RI[0, 0] = 1.0
        return weights_RI
    is_there_E = [
        True,
        _one(config, MatchExpert) is not None,
        _one(config, RecentExpert) is not None,
    ]
    share = 1.0 if config.mode == "gated" else config.start_weight
    weights_RI[:, 0] = 1.0 - share
    weights_RI[:, 1:NUM_EXPERTS] = share * np.array(is_there_E) / sum(is_there_E)
    return weights_RI
