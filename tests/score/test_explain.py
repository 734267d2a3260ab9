"""One walk prices every token by every stage; the stages' sums are those of single walks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parbyte.base.log import Console
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import Probe
from parbyte.score.explain import PASSAGE_TOKENS, Explainer
from parbyte.score.measure import measure
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.lanes import Lanes, plan_lanes

TOKENIZER = ByteTokenizer()
QUIET = Console(quiet=True)


class Flat(Predictor):
    """Prices every byte alike."""

    vocab_size, chunk = 257, 5

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        return torch.full((*tokens_BT.shape, 257), -math.log(257.0))

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)

    def restore(self) -> None:
        super().restore()


class Favour(Predictor):
    """Doubles one byte's odds over the rows below it, and holds a table."""

    vocab_size, chunk = 257, 5

    def __init__(self, inner: Predictor, byte: int) -> None:
        self._inner = inner
        self._bonus_V = np.zeros(257, np.float32)
        self._bonus_V[byte] = math.log(2.0)

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        rows_BTV = self._inner.log_probs(tokens_BT)
        return (rows_BTV + torch.from_numpy(self._bonus_V)).log_softmax(-1)

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        self._inner.observe(chunk_BT)

    def restore(self) -> None:
        super().restore()
        self._inner.restore()


def some_lanes(documents: list[bytes], num_lanes: int) -> Lanes:
    ids = [TOKENIZER.encode(document) for document in documents]
    return plan_lanes(ids, TOKENIZER.bos_id, num_lanes, min_lane_tokens=1)


def probed() -> list[Probe]:
    network = Probe(Flat(), "network")
    return [network, Probe(Favour(network, ord("a")), "favour")]


@pytest.mark.parametrize("num_lanes", [1, 3])
def test_each_stage_has_the_rate_that_it_has_when_it_is_measured_alone(num_lanes: int) -> None:
    lanes = some_lanes([b"banana and bread", b"", b"a" * 31], num_lanes)
    probes = probed()
    explainer = Explainer(probes)
    ledger = measure(probes[-1], lanes, TOKENIZER, QUIET)
    explainer.take(lanes, TOKENIZER)
    network, favour = explainer.explanation(ledger.num_bytes).stages
    assert favour.bpb == pytest.approx(ledger.bpb, rel=1e-6)
    alone = measure(Flat(), lanes, TOKENIZER, QUIET)
    assert network.bpb == pytest.approx(alone.bpb, rel=1e-6)
    assert favour.bpb < network.bpb
    assert (network.state_bytes, favour.state_bytes) == (0, 257 * 4)


def test_frames_add_up_and_nothing_is_counted_twice() -> None:
    lanes, probes = some_lanes([b"abracadabra"], 1), probed()
    explainer = Explainer(probes)
    ledger = measure(probes[-1], lanes, TOKENIZER, QUIET)
    for _ in range(2):
        measure(probes[-1], lanes, TOKENIZER, QUIET)
    for probe in probes:
        probe.take_nats()
    for _ in range(3):
        measure(probes[-1], lanes, TOKENIZER, QUIET)
        explainer.take(lanes, TOKENIZER)
    explanation = explainer.explanation(3 * ledger.num_bytes)
    assert explanation.stages[-1].bpb == pytest.approx(ledger.bpb, rel=1e-6)


def test_the_passage_is_the_middle_of_the_text_piece_by_piece() -> None:
    text = bytes(97 + i % 26 for i in range(PASSAGE_TOKENS + 100))
    lanes, probes = some_lanes([text], 1), probed()
    explainer = Explainer(probes)
    measure(probes[-1], lanes, TOKENIZER, QUIET)
    explainer.take(lanes, TOKENIZER)
    passage = explainer.explanation(len(text)).passage
    assert "".join(passage.pieces).encode() == text[50:-50]
    network, favour = passage.bits_SN
    assert len(network) == len(favour) == PASSAGE_TOKENS
    assert all(
        (after < before) == (piece == "a")
        for piece, before, after in zip(passage.pieces, network, favour, strict=True)
    )


def test_a_probe_changes_no_row() -> None:
    (_, probe), plain = probed(), Favour(Flat(), ord("a"))
    tokens_BT = torch.tensor([[97, 98, 99, 97, 97]])
    assert torch.equal(probe.log_probs(tokens_BT), plain.log_probs(tokens_BT))
    assert torch.equal(probe.step(torch.tensor([256])), plain.step(torch.tensor([256])))
