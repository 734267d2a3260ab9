"""The neural predictor's two computations follow one law, and the law is sliding evaluation.

The reference prices each token alone: a float64 forward over exactly the inputs of its window.
"""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.neural import NeuralPredictor

VOCAB, BOS = 23, 3
PLAIN = ModelConfig(
    vocab_size=VOCAB, bos_id=BOS, model_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=24, rope_dims=4
)
EVERYTHING = ModelConfig(
    vocab_size=VOCAB,
    bos_id=BOS,
    num_layers=3,
    model_dim=16,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=24,
    rope_dims=4,
    xsa_layers=1,
    softcap=10.0,
    logit_bias=True,
    smear="gated",
    bigram_buckets=11,
    bigram_dim=8,
    value_embed_dim=8,
    value_embed_layers=2,
    skips="gated",
    document_mask=True,
    tied=False,
)
LOOPED = dataclasses.replace(
    EVERYTHING, num_layers=4, loop=(1, 2, 1), xsa_layers=1, value_embed_layers=3
)
CONFIGS = {"plain": PLAIN, "everything": EVERYTHING, "looped": LOOPED}


def lively_model(config: ModelConfig) -> GPT:
    """A model whose every parameter matters: no zeros left from initialisation."""
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def random_tokens(num_lanes: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (num_lanes, length), generator=generator)


def chunks_of(predictor: NeuralPredictor, tokens_BT: Tensor) -> list[Tensor]:
    return list(tokens_BT.split(predictor.chunk, dim=1))


def rows_by_chunks(predictor: NeuralPredictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    rows = []
    for chunk_BT in chunks_of(predictor, tokens_BT):
        rows.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    return torch.cat(rows, dim=1)


def rows_by_steps(predictor: NeuralPredictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    rows, last_B = [], torch.full((len(tokens_BT),), BOS)
    for chunk_BT in chunks_of(predictor, tokens_BT):
        for token_B in chunk_BT.T:
            rows.append(predictor.step(last_B))
            last_B = token_B
        predictor.observe(chunk_BT)
    return torch.stack(rows, dim=1)


def last_row(model: GPT, inputs_N: Tensor) -> Tensor:
    hidden_1TD = model.hidden(inputs_N[None])
    return model.logits(hidden_1TD[:, -1])[0].double().log_softmax(-1)


def rows_by_definition(model: GPT, tokens_T: Tensor, window: int, stride: int) -> Tensor:
    """Token i of chunk k = i // S from inputs kS - min(kS, W - S) .. i, one by one, in float64."""
    exact = copy.deepcopy(model).double()
    exact.set_compute_dtype(torch.float64)
    inputs = torch.cat([torch.tensor([BOS]), tokens_T[:-1]])
    rows = []
    for i in range(len(tokens_T)):
        chunk_start = i // stride * stride
        first = chunk_start - min(chunk_start, window - stride)
        rows.append(last_row(exact, inputs[first : i + 1]))
    return torch.stack(rows)


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    ("window", "stride", "length"), [(8, 2, 29), (8, 8, 20), (7, 3, 23), (6, 1, 13), (64, 16, 30)]
)
def test_steps_and_chunks_follow_the_definition(
    config: ModelConfig, window: int, stride: int, length: int, fixed: bool
) -> None:
    model = lively_model(config)
    predictor = NeuralPredictor(model, window=window, stride=stride, fixed=fixed)
    tokens_BT = random_tokens(2, length)
    expected = torch.stack([rows_by_definition(model, row, window, stride) for row in tokens_BT])
    by_chunks, by_steps = (
        rows_by_chunks(predictor, tokens_BT),
        rows_by_steps(predictor, tokens_BT),
    )
    assert by_chunks.dtype == by_steps.dtype == torch.float32
    torch.testing.assert_close(by_chunks.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(by_steps.double(), expected, atol=1e-5, rtol=0)


def test_the_law_is_sliding_evaluation_with_each_token_scored_once() -> None:
    model, window, stride, length = lively_model(PLAIN), 8, 2, 21
    tokens_T = random_tokens(1, length)[0]
    inputs = torch.cat([torch.tensor([BOS]), tokens_T[:-1]])
    expected = torch.zeros(length, VOCAB)
    times_scored = torch.zeros(length)
    start, num_scored = 0, 0
    while num_scored < length:
        end = min(start + window, length)
        rows = model.logits(model.hidden(inputs[None, start:end]))[0].log_softmax(-1)
        expected[num_scored:end] = rows[num_scored - start :]
        times_scored[num_scored:end] += 1
        start, num_scored = start + stride, end
    assert times_scored.eq(1).all()
    rows = rows_by_chunks(NeuralPredictor(model, window=window, stride=stride), tokens_T[None])[0]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(
    st.integers(1, 9), st.integers(0, 9), st.integers(1, 3), st.integers(1, 40), st.integers(0, 99)
)
def test_steps_equal_chunks(stride: int, more: int, lanes: int, length: int, seed: int) -> None:
    predictor = NeuralPredictor(lively_model(PLAIN), window=stride + more, stride=stride)
    tokens_BT = random_tokens(lanes, length, seed)
    by_steps, by_chunks = (
        rows_by_steps(predictor, tokens_BT),
        rows_by_chunks(predictor, tokens_BT),
    )
    torch.testing.assert_close(by_steps, by_chunks, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("flipped", [0, 5, 11, 18])
def test_a_flipped_token_moves_no_row_up_to_its_own(
    config: ModelConfig, flipped: int, fixed: bool
) -> None:
    predictor = NeuralPredictor(lively_model(config), window=8, stride=4, fixed=fixed)
    tokens_BT = random_tokens(2, 19)
    other_BT = tokens_BT.clone()
    other_BT[:, flipped:] = (other_BT[:, flipped:] + 1) % VOCAB
    for rows_of in (rows_by_chunks, rows_by_steps):
        rows, other_rows = rows_of(predictor, tokens_BT), rows_of(predictor, other_BT)
        assert torch.equal(rows[:, : flipped + 1], other_rows[:, : flipped + 1])
    if flipped < 18:
        assert not torch.equal(rows[:, flipped + 1 :], other_rows[:, flipped + 1 :])


def test_rows_sum_to_one() -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=4)
    tokens_BT = random_tokens(3, 19)
    for rows in (rows_by_chunks(predictor, tokens_BT), rows_by_steps(predictor, tokens_BT)):
        sums = rows.double().exp().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


def test_a_lane_does_not_see_its_neighbours() -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=4)
    tokens_BT = random_tokens(3, 19)
    together = rows_by_steps(predictor, tokens_BT)
    alone = rows_by_steps(predictor, tokens_BT[1:2])
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
def test_restore_is_bit_exact(fixed: bool) -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=4, fixed=fixed)
    tokens_BT = random_tokens(2, 19)
    first = rows_by_steps(predictor, tokens_BT)
    predictor.step(tokens_BT[:, 0])
    assert torch.equal(rows_by_steps(predictor, tokens_BT), first)


def test_log_probs_changes_no_state() -> None:
    predictor = NeuralPredictor(lively_model(PLAIN), window=8, stride=4)
    tokens_BT = random_tokens(2, 12)
    first = rows_by_steps(predictor, tokens_BT)
    predictor.restore()
    rows, last_B = [], torch.full((2,), BOS)
    for chunk_BT in chunks_of(predictor, tokens_BT):
        for token_B in chunk_BT.T:
            predictor.log_probs(random_tokens(2, 3, seed=9))
            rows.append(predictor.step(last_B))
            last_B = token_B
        predictor.observe(chunk_BT)
    assert torch.equal(torch.stack(rows, dim=1), first)


def test_steps_that_were_not_what_was_observed_are_forgotten() -> None:
    predictor = NeuralPredictor(lively_model(PLAIN), window=8, stride=2)
    told_BT, observed_BT = random_tokens(2, 2, seed=1), random_tokens(2, 2, seed=2)
    predictor.step(torch.full((2,), BOS))
    predictor.step(told_BT[:, 0])
    predictor.observe(observed_BT)
    row = predictor.step(observed_BT[:, -1])
    predictor.restore()
    predictor.observe(observed_BT)
    torch.testing.assert_close(row, predictor.log_probs(told_BT)[:, 0], atol=1e-5, rtol=0)


def test_twins_share_the_law_and_no_past() -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=4, fixed=True)
    twin, tokens_BT = predictor.twin(), random_tokens(2, 19)
    alone = rows_by_steps(predictor, tokens_BT)
    predictor.restore()
    rows, last_B = [], torch.full((2,), BOS)
    for chunk_BT in chunks_of(predictor, tokens_BT):
        for token_B in chunk_BT.T:
            rows.append(predictor.step(last_B))
            assert torch.equal(twin.step(last_B), rows[-1])
            last_B = token_B
        predictor.observe(chunk_BT)
        twin.observe(chunk_BT)
    assert torch.equal(torch.stack(rows, dim=1), alone)


def test_a_context_is_filled_in_parts_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=4, fixed=True)
    tokens_BT = random_tokens(5, 19)
    whole = rows_by_steps(predictor, tokens_BT)
    monkeypatch.setattr("parbyte.predict.steps._FILL_TOKENS", 8)
    in_parts = rows_by_steps(predictor.twin(), tokens_BT)
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
def test_the_hidden_states_of_steps_and_of_chunks_are_those_of_the_rows(fixed: bool) -> None:
    model, tokens_BT = lively_model(LOOPED), random_tokens(2, 4)
    predictor = NeuralPredictor(model, window=8, stride=4, fixed=fixed)
    for _ in range(3):
        rows_BTV = predictor.log_probs(tokens_BT)
        by_chunk_BTD = predictor.hidden(tokens_BT)
        last_BT = predictor.inputs(tokens_BT)[:, -4:]
        by_steps_BTD = torch.stack([predictor.step_hidden(last_B) for last_B in last_BT.T], dim=1)
        torch.testing.assert_close(by_steps_BTD, by_chunk_BTD, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            model.logits(by_steps_BTD).log_softmax(-1), rows_BTV, atol=1e-5, rtol=0
        )
        predictor.observe(tokens_BT)


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_captured_step_gives_the_rows_of_the_cpu_and_the_same_bits_again(
    config: ModelConfig,
) -> None:
    config = dataclasses.replace(config, model_dim=64)
    tokens_BT = random_tokens(3, 29)
    on_cpu = NeuralPredictor(lively_model(config), window=8, stride=4)
    expected = rows_by_steps(on_cpu, tokens_BT)
    on_gpu = NeuralPredictor(lively_model(config).cuda(), window=8, stride=4)
    rows = rows_by_steps(on_gpu, tokens_BT.cuda())
    torch.testing.assert_close(rows.cpu(), expected, atol=2e-4, rtol=0)
    assert torch.equal(rows_by_steps(on_gpu.twin(), tokens_BT.cuda()), rows)
