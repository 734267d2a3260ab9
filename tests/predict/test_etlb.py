"""The carried bias takes its steps by hand, after the score, and no lane's padding counts."""

import torch
from toys import BOS, STRIDE, VOCAB, WINDOW, rows, text, toy_model
from twins import OnlineBigram

from parbyte.predict.adapter_config import EtlbConfig
from parbyte.predict.etlb import EtlbPredictor, mean_probs_portably, tilted_portably
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor


def network() -> Predictor:
    return NeuralPredictor(toy_model(), window=WINDOW, stride=STRIDE)


def test_the_bias_is_the_one_reckoned_by_hand() -> None:
    settings = EtlbConfig(lr=2.0, steps=3, clamp=0.4)
    tokens_BN = text(2, 3 * STRIDE)
    tokens_BN[1, 6:] = BOS
    inner_rows = rows(network(), tokens_BN).double()
    bias = torch.zeros(VOCAB, dtype=torch.float64)
    expected = []
    for start in range(0, 3 * STRIDE, STRIDE):
        part = slice(start, start + STRIDE)
        expected.append((inner_rows[:, part] + bias).log_softmax(-1))
        # Lane 1's seventh token is the BOS that ends it; from its eighth on it says nothing.
        scored = [
            (lane, place)
            for lane in range(2)
            for place in range(start, start + STRIDE)
            if lane == 0 or place < 7
        ]
        for _ in range(settings.steps):
            slope = torch.zeros_like(bias)
            for lane, place in scored:
                slope += (inner_rows[lane, place] + bias).softmax(-1) / len(scored)
                slope[tokens_BN[lane, place]] -= 1 / len(scored)
            bias = (bias - settings.lr * slope).clamp(-0.4, 0.4)
    assert bias.max() == 0.4
    got = rows(EtlbPredictor(network(), settings, BOS), tokens_BN)
    torch.testing.assert_close(got.double(), torch.cat(expected, dim=1), atol=1e-5, rtol=0)


def test_rows_that_were_never_asked_for_are_learned_from_all_the_same() -> None:
    predictor = EtlbPredictor(network(), EtlbConfig(lr=1.0), BOS)
    tokens_BN = text(2, 3 * STRIDE)
    asked = rows(predictor, tokens_BN)[:, 2 * STRIDE :]
    for start in (0, STRIDE):
        predictor.log_probs(text(2, STRIDE, seed=8))
        predictor.observe(tokens_BN[:, start : start + STRIDE])
    silent = predictor.log_probs(tokens_BN[:, 2 * STRIDE :])
    torch.testing.assert_close(silent, asked, atol=1e-5, rtol=0)


def test_rows_of_an_earlier_chunk_of_the_same_tokens_are_not_taken_for_this_ones() -> None:
    predictor = EtlbPredictor(network(), EtlbConfig(lr=3.0), BOS)
    tokens_BN = text(2, STRIDE).repeat(1, 4)
    expected = rows(predictor, tokens_BN)[:, 3 * STRIDE :]
    predictor.log_probs(tokens_BN[:, :STRIDE])
    for _ in range(3):
        predictor.observe(tokens_BN[:, :STRIDE])
    got = predictor.log_probs(tokens_BN[:, :STRIDE])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_it_stands_on_any_predictor_and_lowers_the_price_of_what_repeats() -> None:
    tokens_BN = text(2, 64) % 3 + 1
    index_BN1 = tokens_BN[..., None]
    plain = rows(OnlineBigram(), tokens_BN).gather(2, index_BN1).mean()
    biased = rows(EtlbPredictor(OnlineBigram(), EtlbConfig(lr=5.0), BOS), tokens_BN)
    assert biased.gather(2, index_BN1).mean() > plain + 0.1


def test_a_flip_moves_no_row_up_to_it_and_restore_forgets() -> None:
    predictor, tokens_BN = EtlbPredictor(network(), EtlbConfig(lr=3.0), BOS), text(2, 3 * STRIDE)
    before = rows(predictor, tokens_BN)
    for flipped in (STRIDE - 1, STRIDE):
        other_BN = tokens_BN.clone()
        other_BN[:, flipped] = tokens_BN[:, flipped] % (VOCAB - 1) + 1
        after = rows(predictor, other_BN)
        assert torch.equal(before[:, : flipped + 1], after[:, : flipped + 1])
        assert not torch.equal(before[:, flipped + 1 :], after[:, flipped + 1 :])
    assert torch.equal(rows(predictor, tokens_BN), before)


def test_the_portable_bias_moves_like_the_other() -> None:
    generator = torch.Generator().manual_seed(3)
    rows_NV = torch.randn(7, VOCAB, generator=generator).log_softmax(-1)
    bias_V = torch.randn(VOCAB, generator=generator)
    exact = (rows_NV.double() + bias_V.double()).log_softmax(-1)
    got = tilted_portably(rows_NV.view(1, 7, VOCAB), bias_V)[0]
    torch.testing.assert_close(got.double(), exact, atol=2e-6, rtol=0)
    means_V = mean_probs_portably(rows_NV, bias_V)
    torch.testing.assert_close(means_V.double(), exact.exp().mean(0), atol=1e-7, rtol=1e-5)
