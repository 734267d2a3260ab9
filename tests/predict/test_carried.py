"""Carried keys and values are attention within a band over the whole text."""

import pytest
import torch
from torch import Tensor
from toys import BOS, VOCAB, Artifact, exact_copy, inputs_of, rows, text, toy_model

from parbyte.base.errors import ArtifactError
from parbyte.model.gpt import GPT
from parbyte.predict.build import build_predictor
from parbyte.predict.carried import CarriedPredictor

EVERYTHING = {
    "num_layers": 3,
    "num_heads": 4,
    "xsa_layers": 1,
    "softcap": 10.0,
    "logit_bias": True,
    "smear": "gated",
    "bigram_buckets": 11,
    "bigram_dim": 8,
    "value_embed_dim": 8,
    "value_embed_layers": 2,
    "skips": "gated",
    "tied": False,
}


def rows_within_a_band(model: GPT, tokens_BN: Tensor, window: int, stride: int) -> Tensor:
    """One float64 forward over everything; input i sees from the start of its chunk's window."""
    exact, inputs_BN = exact_copy(model), inputs_of(tokens_BN)
    place = torch.arange(inputs_BN.shape[1])
    first = (place // stride * stride - (window - stride)).clamp(min=0)
    band = (place[None] <= place[:, None]) & (place[None] >= first[:, None])
    documents = (inputs_BN == BOS).cumsum(1)
    mask = band[None].expand(len(tokens_BN), -1, -1)
    if model.config.document_mask:
        mask = mask & (documents[:, :, None] == documents[:, None])
    object.__setattr__(exact.config, "document_mask", True)
    exact._document_mask = lambda tokens, cache: mask[:, None]  # type: ignore[method-assign]
    return exact.logits(exact.hidden(inputs_BN)).double().log_softmax(-1).detach()


@pytest.mark.parametrize("by_steps", [False, True])
@pytest.mark.parametrize("parts", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("document_mask", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (7, 3), (8, 8), (64, 16)])
def test_rows_are_those_of_a_float64_reference(
    window: int, stride: int, document_mask: bool, parts: dict, by_steps: bool
) -> None:
    model = toy_model(**parts, document_mask=document_mask)
    tokens_BN = text(2, 31)
    tokens_BN[0, 13] = BOS
    expected = rows_within_a_band(model, tokens_BN, window, stride)
    predictor = CarriedPredictor(model, window=window, stride=stride)
    got = rows(predictor, tokens_BN, by_steps=by_steps)
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=0)


def test_a_row_sees_further_back_than_its_window() -> None:
    predictor = CarriedPredictor(toy_model(), window=8, stride=4)
    tokens_BN = text(1, 16)
    other_BN = tokens_BN.clone()
    other_BN[:, 5] = tokens_BN[:, 5] % (VOCAB - 1) + 1
    before, after = rows(predictor, tokens_BN), rows(predictor, other_BN)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 12:], after[:, 12:])  # inputs 8 and on are in the window


def test_log_probs_in_between_steps_changes_nothing() -> None:
    predictor, tokens_BN = CarriedPredictor(toy_model(), window=8, stride=4), text(2, 12)
    expected = rows(predictor, tokens_BN, by_steps=True)
    got, last_B = [], torch.full((2,), BOS)
    for chunk_BT in tokens_BN.split(4, dim=1):
        for token_B in chunk_BT.T:
            predictor.log_probs(text(2, 3, seed=9))
            got.append(predictor.step(last_B)[:, None])
            last_B = token_B
        predictor.observe(chunk_BT)
    assert torch.equal(torch.cat(got, dim=1), expected)


def test_steps_that_were_not_what_was_observed_are_forgotten() -> None:
    predictor, tokens_BN = CarriedPredictor(toy_model(), window=8, stride=4), text(2, 8)
    expected = rows(predictor, tokens_BN)
    predictor.step(torch.full((2,), BOS))
    predictor.step(torch.full((2,), 5))
    predictor.observe(tokens_BN[:, :4])
    torch.testing.assert_close(
        predictor.log_probs(tokens_BN[:, 4:]), expected[:, 4:], atol=1e-5, rtol=0
    )


def test_the_key_builds_it_and_refuses_what_it_cannot_carry() -> None:
    table = {"window": 8, "stride": 4, "carry": True}
    assert isinstance(build_predictor(Artifact(toy_model(), table)), CarriedPredictor)
    for more in ({"engine": "portable"}, {"stack": [{"kind": "ttt"}]}):
        with pytest.raises(ArtifactError, match=r"predict\.carry"):
            build_predictor(Artifact(toy_model(), {**table, **more}))
