"""Windows in batches cost what the predictor's own calls say, token by token."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.probe import Probe
from parbyte.score import prices
from parbyte.score.prices import Prices, chunk_prices, lane_prices, window_prices
from parbyte.text.lanes import Lanes, join_lanes

VOCAB, BOS = 23, 3
PLAIN = ModelConfig(
    vocab_size=VOCAB, bos_id=BOS, model_dim=16, num_heads=2, num_kv_heads=1, mlp_dim=24, rope_dims=4
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
    xsa_layers=2,
    softcap=10.0,
    smear="gated",
    bigram_buckets=11,
    bigram_dim=8,
    value_embed_dim=8,
    value_embed_layers=2,
    skips="gated",
    document_mask=True,
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


def random_lanes(lengths: list[int], seed: int = 0) -> Lanes:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, VOCAB, length).astype(np.uint16) for length in lengths]
    return Lanes(tokens, tuple(bool(flag) for flag in rng.integers(0, 2, len(lengths))))


def by_place(found: Prices, lanes: Lanes) -> np.ndarray:
    """Nats at each place of the stream; every place of a coded token is met exactly once."""
    nats_N = np.full(len(join_lanes(lanes, BOS)), np.nan)
    for places, nats in found:
        assert np.isnan(nats_N[places]).all() and len(np.unique(places)) == len(places)
        nats_N[places] = nats
    assert np.isnan(nats_N).sum() == lanes.continues.count(False)
    return nats_N


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (8, 8), (7, 3), (6, 1), (64, 16)])
def test_batches_of_windows_cost_what_chunks_cost(
    config: ModelConfig, window: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prices.BATCH_TOKENS, "cpu", 3 * window)
    predictor = NeuralPredictor(lively_model(config), window=window, stride=stride)
    lanes = random_lanes([29, 0, 17, 1, 40])
    by_windows = by_place(window_prices(predictor, lanes, BOS), lanes)
    by_chunks = by_place(chunk_prices(predictor, lanes, BOS), lanes)
    np.testing.assert_allclose(by_windows, by_chunks, atol=2e-5, rtol=0)


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(0, 9),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_no_batch_size_and_no_layout_of_lanes_changes_a_price(
    lengths: list[int], stride: int, more: int, batch_tokens: int, seed: int
) -> None:
    predictor = NeuralPredictor(lively_model(PLAIN), window=stride + more, stride=stride)
    lanes = random_lanes(lengths, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prices.BATCH_TOKENS, "cpu", batch_tokens)
        by_windows = by_place(lane_prices(predictor, lanes, BOS), lanes)
    by_chunks = by_place(chunk_prices(predictor, lanes, BOS), lanes)
    np.testing.assert_allclose(by_windows, by_chunks, atol=2e-5, rtol=0)


def test_a_probe_over_a_bare_network_knows_the_prices_of_the_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = NeuralPredictor(lively_model(EVERYTHING), window=8, stride=3)
    probe, lanes = Probe(predictor, "network"), random_lanes([29, 0, 17, 1, 40])
    by_place(chunk_prices(probe, lanes, BOS), lanes)
    by_chunks_BT = probe.take_nats()
    monkeypatch.setattr(predictor, "log_probs", None)  # batches never ask for rows
    found = by_place(lane_prices(probe, lanes, BOS), lanes)
    by_windows_BT = probe.take_nats()
    for row_T, other_T, length in zip(by_windows_BT, by_chunks_BT, lanes.lengths, strict=True):
        np.testing.assert_allclose(row_T[:length], other_T[:length], atol=2e-5, rtol=0)
    assert by_windows_BT.sum(dtype=np.float64) == pytest.approx(np.nansum(found), rel=1e-12)
    assert probe.seconds > 0 and probe.take_nats().size == 0


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("num_last", [1, 4, 9])
def test_the_last_positions_alone_are_the_last_of_all(config: ModelConfig, num_last: int) -> None:
    model = lively_model(config)
    tokens_BT = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, (3, 9)))
    whole_BTD = model.hidden(tokens_BT)
    last_BRD = model.hidden(tokens_BT, num_last=num_last)
    torch.testing.assert_close(last_BRD, whole_BTD[:, -num_last:], atol=1e-5, rtol=0)
