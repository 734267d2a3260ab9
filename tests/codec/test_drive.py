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
