"""One loop codes both ways, whatever the lanes, and knows the ideal length of its bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parbyte.base.errors import BitstreamError
from parbyte.base.log import Console
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import Decoder, Encoder
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor

QUIET = Console(quiet=True)
VOCAB, BOS = 11, 4


class Watched(Predictor):
    """A bigram table that records the shapes it is asked for and what it observes."""

    vocab_size = VOCAB

    def __init__(self, chunk: int, scale: float = 1.0) -> None:
        self.chunk = chunk
        logits = scale * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
        self.table_UV = logits.log_softmax(-1)
        self.shapes: set[tuple[int, ...]] = set()
        self.observed: list[Tensor] = []

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        raise NotImplementedError

    def step(self, last_B: Tensor) -> Tensor:
        self.shapes.add(tuple(last_B.shape))
        return self.table_UV[last_B]

    def observe(self, chunk_BT: Tensor) -> None:
        assert chunk_BT.shape[1] <= self.chunk
        self.observed.append(chunk_BT.clone())

    def restore(self) -> None:
        self.observed = []

    def twin(self) -> "Watched":
        other = Watched(self.chunk)
        other.table_UV = self.table_UV
        return other


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=20), min_size=1, max_size=5),
    st.integers(1, 7),
)
def test_decoding_restores_every_lane(lanes: list[list[int]], chunk: int) -> None:
    known = [np.array(lane, np.uint16) for lane in lanes]
    lengths = [len(lane) for lane in lanes]
    encoder, predictor = Encoder(known), Watched(chunk)
    encoded = drive(predictor, encoder, lengths, BOS, QUIET)
    decoder = Decoder(encoder.to_bytes(), VOCAB)
    decoded = drive(predictor, decoder, lengths, BOS, QUIET)
    assert [lane.tolist() for lane in encoded.tokens] == lanes
    assert [lane.tolist() for lane in decoded.tokens] == lanes
    assert encoded.nats == decoded.nats
    expected = -math.fsum(
        float(predictor.table_UV[last, token])
        for lane in lanes
        for last, token in zip([BOS, *lane], lane, strict=False)
    )
    assert encoded.nats == pytest.approx(expected, abs=1e-9)
    assert predictor.shapes <= {(len(lanes),)}


def test_ended_lanes_are_fed_bos_and_not_coded() -> None:
    class Kept(Watched):
        def restore(self) -> None:
            pass

    predictor = Kept(chunk=2)
    known = [np.array([1, 2, 3], np.uint16), np.array([5], np.uint16)]
    drive(predictor, Encoder(known), [3, 1], BOS, QUIET)
    observed_BT = torch.cat(predictor.observed, dim=1)
    assert observed_BT.tolist() == [[1, 2, 3], [5, BOS, BOS]]
    assert [chunk_BT.shape[1] for chunk_BT in predictor.observed] == [2, 1]


def test_the_bits_are_as_long_as_the_nats_say() -> None:
    known = [
        np.random.default_rng(lane).integers(0, VOCAB, 900).astype(np.uint16) for lane in (0, 1)
    ]
    encoder = Encoder(known)
    nats = drive(Watched(50), encoder, [900, 900], BOS, QUIET).nats
    bits = 8 * len(encoder.to_bytes())
    assert abs(bits - nats / math.log(2)) < 64 + 1e-4 * bits


def test_a_predictor_that_gives_no_numbers_is_refused() -> None:
    with pytest.raises(BitstreamError, match="no finite probabilities"):
        drive(Watched(4, math.nan), Encoder([np.array([1], np.uint16)]), [1], BOS, QUIET)


def test_impossible_tokens_are_refused_even_though_they_can_be_coded() -> None:
    predictor = Watched(4)
    predictor.table_UV = torch.full((VOCAB, VOCAB), -torch.inf)
    predictor.table_UV[:, 0] = 0.0
    with pytest.raises(BitstreamError, match="no finite probabilities"):
        drive(predictor, Encoder([np.array([1], np.uint16)]), [1], BOS, QUIET)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=20), min_size=1, max_size=5),
    st.integers(1, 7),
)
def test_lanes_that_take_turns_cost_and_decode_the_same(lanes: list[list[int]], chunk: int) -> None:
    known, lengths = [np.array(lane, np.uint16) for lane in lanes], [len(lane) for lane in lanes]
    predictor = Watched(chunk)
    together = drive(predictor, Encoder(known), lengths, BOS, QUIET)
    encoder = Encoder(known, check_tokens=1)
    in_turns = drive(predictor, encoder, lengths, BOS, QUIET, turns=2)
    assert in_turns.nats == pytest.approx(together.nats, abs=1e-9)
    assert len(encoder.checks) == -(-max(lengths) // chunk)
    decoder = Decoder(encoder.to_bytes(), VOCAB, checks=encoder.checks, check_tokens=1)
    decoded = drive(predictor, decoder, lengths, BOS, QUIET, turns=2)
    assert [lane.tolist() for lane in decoded.tokens] == lanes
    assert decoded.nats == in_turns.nats


def test_a_network_codes_each_lane_the_same_alone_and_in_turns() -> None:
    config = ModelConfig(
        vocab_size=VOCAB, bos_id=BOS, model_dim=16, num_heads=2, num_kv_heads=1, rope_dims=4
    )
    rng = np.random.default_rng(0)
    known = [rng.integers(0, VOCAB, length).astype(np.uint16) for length in (40, 33, 37, 12)]
    lengths = [len(lane) for lane in known]
    model = GPT(config).eval().requires_grad_(False)
    payloads = []
    for fixed in (False, True):
        predictor = NeuralPredictor(model, window=16, stride=8, fixed=fixed)
        encoder = Encoder(known, check_tokens=1)
        nats = drive(predictor, encoder, lengths, BOS, QUIET, turns=2).nats
        plain = drive(predictor, Encoder(known), lengths, BOS, QUIET).nats
        assert nats == pytest.approx(plain, rel=1e-6)
        decoder = Decoder(encoder.to_bytes(), VOCAB, checks=encoder.checks, check_tokens=1)
        decoded = drive(predictor, decoder, lengths, BOS, QUIET, turns=2)
        assert all(map(np.array_equal, decoded.tokens, known))
        payloads.append(encoder.to_bytes())
    assert abs(len(payloads[0]) - len(payloads[1])) <= 4


def test_a_divergence_is_named_with_its_place() -> None:
    class Drifting(Watched):
        """Its rows change from the second chunk on."""

        def step(self, last_B: Tensor) -> Tensor:
            rows_BV = super().step(last_B)
            return rows_BV.roll(1, 1) if self.observed else rows_BV

        def twin(self) -> "Drifting":
            return Drifting(self.chunk)

    known = [
        np.random.default_rng(lane).integers(0, VOCAB, 30).astype(np.uint16) for lane in (0, 1)
    ]
    encoder = Encoder(known, check_tokens=1)
    drive(Watched(10), encoder, [30, 30], BOS, QUIET, turns=2)
    decoder = Decoder(encoder.to_bytes(), VOCAB, checks=encoder.checks, check_tokens=1)
    with pytest.raises(BitstreamError, match="among the tokens from 20 to "):
        drive(Drifting(10), decoder, [30, 30], BOS, QUIET, turns=2)


def test_checks_lie_apart_as_asked() -> None:
    known = [np.random.default_rng(3).integers(0, VOCAB, 40).astype(np.uint16)] * 2
    numbers = []
    for check_tokens in (1, 8, 9, 30, 81):
        encoder = Encoder(known, check_tokens=check_tokens)
        drive(Watched(4), encoder, [40, 40], BOS, QUIET, turns=2)
        numbers.append(len(encoder.checks))
        decoder = Decoder(
            encoder.to_bytes(), VOCAB, checks=encoder.checks, check_tokens=check_tokens
        )
        decoded = drive(Watched(4), decoder, [40, 40], BOS, QUIET, turns=2)
        assert all(map(np.array_equal, decoded.tokens, known))
    assert numbers == [10, 10, 5, 2, 0]


def test_a_predictor_without_a_twin_takes_no_turns() -> None:
    class Single(Watched):
        def twin(self) -> None:
            return None

    with pytest.raises(BitstreamError, match="cannot take turns"):
        drive(Single(4), Encoder([np.array([1], np.uint16)]), [1], BOS, QUIET, turns=2)
