"""Measuring scores each token once, from its own past, and adds up by document."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parbyte.base.log import Console
from parbyte.predict.predictor import Predictor
from parbyte.score.measure import measure
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.lanes import plan_lanes

QUIET = Console(quiet=True)
TOKENIZER = ByteTokenizer()
BOS = TOKENIZER.bos_id


class Bigram(Predictor):
    """Prices a byte by the one before it, and counts how often each position was observed."""

    vocab_size = 257

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        logits = torch.randn(257, 257, generator=torch.Generator().manual_seed(0))
        self.table_UV = logits.log_softmax(-1)
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        last_B1 = torch.full((len(tokens_BT), 1), BOS) if self._last_B1 is None else self._last_B1
        return self.table_UV[torch.cat([last_B1, tokens_BT[:, :-1]], dim=1)]

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        self._last_B1 = chunk_BT[:, -1:]

    def restore(self) -> None:
        super().restore()
        self._last_B1: Tensor | None = None


def price(predictor: Bigram, last: int, token: int) -> float:
    return -float(predictor.table_UV[last, token])


@settings(max_examples=40)
@given(
    st.lists(st.binary(max_size=30), max_size=8),
    st.integers(1, 5),
    st.integers(1, 7),
)
def test_the_ledger_is_the_sum_over_single_tokens(
    documents: list[bytes], num_lanes: int, chunk: int
) -> None:
    ids = [TOKENIZER.encode(document) for document in documents]
    lanes = plan_lanes(ids, BOS, num_lanes, min_lane_tokens=1)
    predictor = Bigram(chunk)
    ledger = measure(predictor, lanes, TOKENIZER, QUIET)
    expected = math.fsum(
        price(predictor, last, token)
        for lane in lanes.tokens
        for last, token in zip([BOS, *lane.tolist()], lane.tolist(), strict=False)
    )
    assert ledger.kind == "measured"
    assert ledger.nats == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert ledger.num_tokens == sum(lanes.lengths)
    assert ledger.num_bytes == sum(map(len, documents))
    assert [document.bytes for document in ledger.documents] == [len(text) for text in documents]


def test_documents_are_priced_one_by_one_even_when_cut() -> None:
    documents = [b"in the beginning", b"", b"God created"]
    ids = [TOKENIZER.encode(document) for document in documents]
    predictor = Bigram(4)
    ledger = measure(predictor, plan_lanes(ids, BOS, 1), TOKENIZER, QUIET)
    last = BOS
    for number, (document, score) in enumerate(zip(documents, ledger.documents, strict=True)):
        # The first BOS of a lane is implied; every other one is coded and paid for.
        tokens = [*document] if number == 0 else [BOS, *document]
        nats = 0.0
        for token in tokens:
            nats += price(predictor, last, token)
            last = token
        assert score.nats == pytest.approx(nats, rel=1e-12)
        assert score.tokens == len(tokens)
    cut = measure(predictor, plan_lanes(ids, BOS, 4, min_lane_tokens=1), TOKENIZER, QUIET)
    assert [document.bytes for document in cut.documents] == [16, 0, 11]


def test_an_empty_text_costs_nothing() -> None:
    ledger = measure(Bigram(4), plan_lanes([], BOS, 4), TOKENIZER, QUIET)
    assert (ledger.nats, ledger.num_bytes, ledger.documents) == (0.0, 0, [])


def test_measuring_twice_gives_the_same_ledger() -> None:
    lanes = plan_lanes([np.arange(100, dtype=np.uint16)], BOS, 3, min_lane_tokens=1)
    predictor = Bigram(7)
    first = measure(predictor, lanes, TOKENIZER, QUIET)
    assert measure(predictor, lanes, TOKENIZER, QUIET) == first
