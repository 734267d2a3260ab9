"""The contract's default `step` gives the rows of `log_probs`."""

import torch
from torch import Tensor

from parbyte.predict.predictor import Predictor

VOCAB, CHUNK = 7, 3


class OrderTwoTable(Predictor):
    """Prices a token by its two predecessors; before the text stands BOS = 0."""

    vocab_size, chunk = VOCAB, CHUNK

    def __init__(self) -> None:
        logits = torch.randn(VOCAB, VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
        self._log_probs_PQV = logits.log_softmax(-1)
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        past_BN = torch.cat([self._last_two(len(tokens_BT)), tokens_BT[:, :-1]], dim=1)
        return self._log_probs_PQV[past_BN[:, :-1], past_BN[:, 1:]]

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        self._past = torch.cat([self._last_two(len(chunk_BT)), chunk_BT], dim=1)[:, -2:]

    def restore(self) -> None:
        super().restore()
        self._past: Tensor | None = None

    def _last_two(self, num_lanes: int) -> Tensor:
        zeros = torch.zeros(num_lanes, 2, dtype=torch.int64)
        return zeros if self._past is None else self._past


def rows_by_steps(predictor: Predictor, tokens_BT: Tensor, bos_id: int) -> Tensor:
    predictor.restore()
    rows, last_B = [], torch.full((len(tokens_BT),), bos_id)
    for start in range(0, tokens_BT.shape[1], predictor.chunk):
        chunk_BT = tokens_BT[:, start : start + predictor.chunk]
        for token_B in chunk_BT.T:
            rows.append(predictor.step(last_B))
            last_B = token_B
        predictor.observe(chunk_BT)
    return torch.stack(rows, dim=1)


def rows_by_chunks(predictor: Predictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    rows = []
    for start in range(0, tokens_BT.shape[1], predictor.chunk):
        chunk_BT = tokens_BT[:, start : start + predictor.chunk]
        rows.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    return torch.cat(rows, dim=1)


def test_default_step_gives_the_rows_of_log_probs() -> None:
    predictor = OrderTwoTable()
    tokens_BT = torch.randint(VOCAB, (4, 11), generator=torch.Generator().manual_seed(1))
    by_steps = rows_by_steps(predictor, tokens_BT, bos_id=0)
    by_chunks = rows_by_chunks(predictor, tokens_BT)
    past_BN = torch.cat([torch.zeros(4, 2, dtype=torch.int64), tokens_BT], dim=1)
    expected = predictor._log_probs_PQV[past_BN[:, :-2], past_BN[:, 1:-1]]
    assert torch.equal(by_chunks, expected)
    assert torch.equal(by_steps, expected)


def test_restore_forgets_half_a_chunk() -> None:
    predictor = OrderTwoTable()
    first = predictor.step(torch.tensor([0]))
    predictor.step(torch.tensor([5]))
    predictor.restore()
    assert torch.equal(predictor.step(torch.tensor([0])), first)
