"""The posterior over counts of observed chunks is its formula, and forgets as the decoder does.

The reference counts everything anew at every position. Shapes: B lanes, T positions, V vocab.
"""

import numpy as np
import pytest
import torch
from tests.predict.test_mix import (
    BOS,
    LANES,
    LENGTH,
    chain_levels,
    rows_of,
    some_rows,
    some_text,
    step_down,
)
from torch import Tensor
from toys import GivenRows, Uniform, rows

from parbyte.base.errors import ResourceError
from parbyte.base.log import Console
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import Decoder, Encoder
from parbyte.kernels import batch_counts
from parbyte.kernels.batch_counts import Counts
from parbyte.predict import batch_ngram
from parbyte.predict.batch_ngram import BatchNgramPredictor
from parbyte.predict.build import build_row_stage
from parbyte.predict.expert_config import NgramConfig, NgramExpert

METHODS = ["dirichlet", "witten-bell", "ppmd", "kneser-ney"]
SMALL = 1 << 20


def config_of(**settings: object) -> NgramConfig:
    return NgramConfig(**{"learn": "chunk", "memory": SMALL, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(("order", "lowest"), [(22, 1), (4, 2), (3, 0), (1, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_with_chunks_of_one_it_is_the_posterior_of_every_token(
    method: str, order: int, lowest: int
) -> None:
    rows_BTV, tokens_BT = some_rows(lanes=3), some_text(lanes=3)
    settings = {"method": method, "order": order, "lowest": lowest, "memory": SMALL}
    by_tokens_BTV = rows_of(NgramConfig(learn="token", **settings), rows_BTV, tokens_BT, 1)
    by_chunks_BTV = rows_of(NgramConfig(learn="chunk", **settings), rows_BTV, tokens_BT, 1)
    assert not torch.allclose(by_chunks_BTV, rows_BTV, atol=0.1)
    torch.testing.assert_close(by_chunks_BTV, by_tokens_BTV, atol=5e-6, rtol=0)


@pytest.mark.parametrize("lowest", [0, 1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_posterior_is_its_formula(method: str, lowest: int) -> None:
    rows_BTV, tokens_BT, chunk = some_rows(), some_text(), 7
    shape = {"method": method, "order": 6, "lowest": lowest, "concentration": 2.0, "discount": 0.6}
    found_BTV = rows_of(config_of(**shape), rows_BTV, tokens_BT, chunk).double()
    expert = NgramExpert(**shape)
    lanes = np.concatenate([np.full((LANES, 1), BOS), tokens_BT.numpy()], axis=1).tolist()
    for t in range(LENGTH):
        past = [lane[: t // chunk * chunk + 1] for lane in lanes]
        for b in range(LANES):
            wanted_V = rows_BTV[b, t].double().exp()
            levels = chain_levels(past, lanes[b][: t + 1], expert)
            for order in range(lowest, len(levels)):
                weights, left = step_down(expert, levels[order], order == expert.order)
                a_V = torch.tensor([weights.get(v, 0.0) for v in range(len(wanted_V))])
                wanted_V = (a_V + left * wanted_V) / (a_V.sum() + left)
            torch.testing.assert_close(found_BTV[b, t], wanted_V.log(), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("vocab", [256, 1024, 8192])
def test_rows_sum_to_one(vocab: int) -> None:
    rows_BTV, tokens_BT = some_rows(vocab, 60, 2) * 3, some_text(vocab, 60, 2)
    for lowest in (0, 1):
        config = config_of(lowest=lowest, memory=4 * SMALL)
        found_BTV = rows_of(config, rows_BTV.log_softmax(-1), tokens_BT, 20)
        sums = found_BTV.double().exp().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


def test_impossible_tokens_do_no_harm() -> None:
    rows_BTV = some_rows()
    rows_BTV[:, :, 3] = -200.0
    found_BTV = rows_of(config_of(), rows_BTV, some_text())
    assert bool(found_BTV.isfinite().all())


def test_a_token_moves_no_row_up_to_its_own_and_no_other_lane_before_the_next_chunk() -> None:
    rows_BTV, tokens_BT, chunk, t = some_rows(), some_text(), 8, 19
    flipped_BT = tokens_BT.clone()
    flipped_BT[0, t] = tokens_BT[0, t] % 6 + 1
    before_BTV = rows_of(config_of(), rows_BTV, tokens_BT, chunk)
    after_BTV = rows_of(config_of(), rows_BTV, flipped_BT, chunk)
    is_same_BT = (before_BTV == after_BTV).all(-1)
    assert bool(is_same_BT[0, : t + 1].all()) and not is_same_BT[0, t + 1]
    assert bool(is_same_BT[1, :24].all()) and not bool(is_same_BT[1, 24:].all())


def test_a_look_at_a_chunk_between_steps_changes_nothing() -> None:
    predictor = BatchNgramPredictor(Uniform(7, LANES, 10), config_of(), BOS)
    tokens_BT = some_text()[:, :20]
    wanted_BTV = rows(predictor, tokens_BT, by_steps=True)
    parts, last_B = [], torch.full((LANES,), BOS)
    for chunk_BT in tokens_BT.split(10, dim=1):
        for token_B in chunk_BT.T:
            parts.append(predictor.step(last_B))
            predictor.log_probs((chunk_BT + 1) % 7)
            last_B = token_B
        predictor.observe(chunk_BT)
    assert torch.equal(torch.stack(parts, dim=1), wanted_BTV)


def test_rows_do_not_depend_on_how_many_are_made_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows_BTV, tokens_BT = some_rows(), some_text()
    whole_BTV = rows_of(config_of(), rows_BTV, tokens_BT)
    monkeypatch.setattr(batch_ngram, "_PIECE", 3 * rows_BTV.shape[2])
    pieces_BTV = rows_of(config_of(), rows_BTV, tokens_BT)
    torch.testing.assert_close(pieces_BTV, whole_BTV, atol=1e-6, rtol=1e-6)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_rows_and_always_the_same_bits() -> None:
    rows_BTV, tokens_BT = some_rows(300, 120, 8), some_text(300, 120, 8)
    wanted_BTV = rows_of(config_of(), rows_BTV, tokens_BT)
    found = [rows_of(config_of(), rows_BTV.cuda(), tokens_BT) for _ in range(2)]
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0].cpu(), wanted_BTV, atol=1e-5, rtol=0)


def some_repeats(vocab: int, lanes: int, length: int) -> Tensor:
    rng = np.random.default_rng(0)
    tokens_BT = torch.from_numpy(rng.integers(1, vocab, (lanes, length)))
    tokens_BT[:, -60:] = tokens_BT[:, -120:-60]
    return tokens_BT


def test_memory_is_kept_and_what_is_new_is_learned() -> None:
    memory, lanes, vocab, chunk = 1 << 17, 8, 64, 20
    tokens_BT = some_repeats(vocab, lanes, 600)
    config = config_of(memory=memory, order=3)
    predictor = BatchNgramPredictor(Uniform(vocab, lanes, chunk), config, BOS)
    nats = []
    for part_BT in tokens_BT.split(chunk, dim=1):
        nats.append(-float(predictor.log_probs(part_BT).gather(2, part_BT[..., None]).mean()))
        predictor.observe(part_BT)
        assert 0 < predictor.count_bytes() <= memory
    assert nats[-4] > 4.0
    assert nats[-1] < 2.0


def test_lanes_are_decoded_though_the_memory_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, quiet, forgotten = [200, 200, 199, 110], Console(quiet=True), []
    drop_half_ = batch_counts._drop_half_

    def drop_and_note_(counts: Counts) -> None:
        forgotten.append(int(counts.marks[batch_counts.LENGTH]))
        drop_half_(counts)

    monkeypatch.setattr(batch_counts, "_drop_half_", drop_and_note_)
    texts = some_repeats(64, 4, 200).numpy().astype(np.uint16)
    known = [text_T[:length] for text_T, length in zip(texts, lengths, strict=True)]
    encoder, config = Encoder(known), config_of(memory=1 << 16, order=3)
    drive(BatchNgramPredictor(Uniform(64, 4, 10), config, BOS), encoder, lengths, BOS, quiet)
    when, decoder = forgotten.copy(), Decoder(encoder.to_bytes(), 64)
    other = BatchNgramPredictor(Uniform(64, 4, 10), config, BOS)
    decoded = drive(other, decoder, lengths, BOS, quiet)
    assert all(np.array_equal(a, b) for a, b in zip(decoded.tokens, known, strict=True))
    assert when and forgotten == 2 * when


@pytest.mark.parametrize("memory", [1 << 16, 5_000_000])
def test_a_memory_too_small_for_the_lanes_is_named(memory: int) -> None:
    predictor = BatchNgramPredictor(Uniform(8, 4, 1000), config_of(memory=memory), BOS)
    with pytest.raises(ResourceError, match=r"'memory'.*'order'.*'codec.lanes'") as caught:
        predictor.log_probs(torch.ones((4, 1), dtype=torch.int64))
    least = int(str(caught.value).split(" bytes")[0].split()[-1].replace(",", ""))
    predictor = BatchNgramPredictor(Uniform(8, 4, 1000), config_of(memory=least), BOS)
    predictor.log_probs(torch.ones((4, 1), dtype=torch.int64))
    with pytest.raises(ResourceError):
        predictor = BatchNgramPredictor(Uniform(8, 4, 1000), config_of(memory=least - 32), BOS)
        predictor.log_probs(torch.ones((4, 1), dtype=torch.int64))


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("length", [31, 32])
def test_a_prior_counts_as_it_does_for_the_posterior_of_every_token(
    lanes: int, length: int
) -> None:
    rows_BTV, tokens_BT = some_rows(lanes=lanes), some_text(lanes=lanes)
    prior_N = np.random.default_rng(1).integers(1, 7, length).astype(np.uint16)
    found = []
    for learn in ("token", "chunk"):
        config = NgramConfig(order=5, memory=SMALL, learn=learn)
        inner = GivenRows(rows_BTV, 1)
        predictor = build_row_stage(config, inner, BOS, prior_N=prior_N)
        found.append(rows(predictor, tokens_BT))
        assert torch.equal(rows(predictor, tokens_BT), found[-1])
    torch.testing.assert_close(found[1], found[0], atol=5e-6, rtol=0)
    assert not torch.allclose(found[1], rows_of(config, rows_BTV, tokens_BT, 1), atol=0.1)


def test_a_prior_too_long_for_the_memory_is_refused() -> None:
    prior_N = np.random.default_rng(0).integers(1, 64, 20_000).astype(np.uint16)
    predictor = BatchNgramPredictor(Uniform(64, 1, 8), config_of(memory=1 << 18), BOS, prior_N)
    with pytest.raises(ResourceError, match="prior_bytes"):
        predictor.log_probs(torch.ones((1, 1), dtype=torch.int64))
