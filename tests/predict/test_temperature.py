"""Temperatures: mixtures by hand, fits against scipy, and training text alone to fit them to."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from toys import STRIDE, VOCAB, WINDOW, Artifact, rows, text, toy_model

from parbyte.base.errors import DataError, RecipeError
from parbyte.base.settings import read_table, to_table
from parbyte.predict.adapter_config import EtlbConfig, TemperatureConfig
from parbyte.predict.build import fit_stack
from parbyte.predict.config import PredictConfig
from parbyte.predict.etlb import EtlbPredictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.predict.temperature import (
    TemperaturePredictor,
    bins_of,
    fit_temperature,
    tempered,
    tempered_portably,
)
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.shards import ShardWriter, open_shards


def network() -> Predictor:
    return NeuralPredictor(toy_model(), window=WINDOW, stride=STRIDE)


def random_rows(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    sharpness = torch.linspace(0.2, 4.0, count)[:, None]
    return (sharpness * torch.randn(count, VOCAB, generator=generator)).log_softmax(-1)


def write_split(folder: Path, split: str, ids: np.ndarray) -> None:
    with ShardWriter(folder, split, 1 << 20) as writer:
        writer.append(ids.astype(np.uint16))


@pytest.mark.parametrize("function", [tempered, tempered_portably])
def test_every_row_is_its_bins_mixture_of_powers(
    function: Callable[[torch.Tensor, TemperatureConfig], torch.Tensor],
) -> None:
    settings = TemperatureConfig(
        edges=(1.0, 2.0),
        temperatures=(0.5, 2.0, 0.8, 1.5, 1.0, 3.0),
        weights=(0.25, 0.75, 0.2, 0.2, 1.0, 0.0),
    )
    rows_NV = random_rows(60)
    seen = set()
    for row, got in zip(rows_NV.double(), function(rows_NV, settings), strict=True):
        entropy = float(-(row.exp() * row).sum())
        place = int(entropy >= 1.0) + int(entropy >= 2.0)
        seen.add(place)
        expected = torch.zeros(VOCAB, dtype=torch.float64)
        for k in range(2):
            power = row.exp() ** (1 / settings.temperatures[2 * place + k])
            share = settings.weights[2 * place + k] / sum(settings.weights[2 * place :][:2])
            expected += share * power / power.sum()
        torch.testing.assert_close(got.double().exp(), expected, atol=1e-6, rtol=0)
    assert seen == {0, 1, 2}


def test_it_wraps_any_predictor_and_temperature_one_changes_nothing() -> None:
    tokens_BN = text(2, 3 * STRIDE)
    plain = rows(network(), tokens_BN)
    same = rows(TemperaturePredictor(network(), TemperatureConfig()), tokens_BN)
    torch.testing.assert_close(same, plain, atol=1e-6, rtol=0)
    halved = TemperatureConfig(temperatures=(0.5,))
    for by_steps in (False, True):
        sharp = rows(TemperaturePredictor(network(), halved), tokens_BN, by_steps=by_steps)
        torch.testing.assert_close(sharp, (2 * plain).log_softmax(-1), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def drawn_N() -> np.ndarray:
    """Text of the network itself, drawn at temperature 1.6: its own rows are too sure of it."""
    generator, predictor = torch.Generator().manual_seed(4), network()
    ids = [1]
    while len(ids) < 401:
        row_V = predictor.step(torch.tensor(ids[-1:]))[0]
        ids.append(int(torch.multinomial((row_V / 1.6).softmax(-1), 1, generator=generator)))
        if len(ids) % STRIDE == 1:
            predictor.observe(torch.tensor([ids[-STRIDE:]]))
    return np.array(ids)


@pytest.fixture
def folder(tmp_path: Path, drawn_N: np.ndarray) -> Path:
    write_split(tmp_path, "train", drawn_N)
    return tmp_path


def test_one_temperature_is_the_one_that_scipy_finds(folder: Path) -> None:
    settings = fit_temperature(network(), TemperatureConfig(fit_tokens=300), folder)
    rows_NV, ids_N = training_rows(folder, 300)

    def nats(log_t: float) -> float:
        powers = (rows_NV / np.exp(log_t)).log_softmax(-1)
        return float(-powers.gather(1, ids_N[:, None]).mean())

    best = minimize_scalar(nats, bounds=(-2, 3), method="bounded", options={"xatol": 1e-9})
    assert abs(np.log(settings.temperatures[0]) - best.x) < 1e-4
    assert 1.2 < settings.temperatures[0] < 2.2
    assert settings.weights == (1.0,)


def test_a_mixture_in_every_bin_is_no_worse_than_scipys(folder: Path) -> None:
    given = TemperatureConfig(edges=(1.9,), temperatures=(0.9, 3.0, 0.9, 3.0), fit_tokens=300)
    settings = fit_temperature(network(), given, folder)
    rows_NV, ids_N = training_rows(folder, 300)
    bins_N = bins_of(rows_NV, given)
    for place in range(2):
        own_NV, own_N = rows_NV[bins_N == place], ids_N[bins_N == place]
        assert len(own_N) > 10

        def nats(x: np.ndarray) -> float:
            share = 1 / (1 + np.exp(-x[2]))
            one, two = ((own_NV / np.exp(t)).log_softmax(-1).exp() for t in x[:2])  # noqa: B023
            mixed = share * one + (1 - share) * two
            return float(-mixed.gather(1, own_N[:, None]).log().mean())  # noqa: B023

        best = minimize(nats, [np.log(0.9), np.log(3.0), 0.0], method="Nelder-Mead")
        got = -tempered(own_NV.float(), settings).gather(1, own_N[:, None]).mean()
        assert float(got) < best.fun + 1e-3


def training_rows(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids_N = torch.from_numpy(open_shards(folder, "train")[: count + 1].astype("int64"))[1:]
    return rows(network(), ids_N[None])[0].double(), ids_N


def test_no_text_but_the_training_split_can_reach_the_fit(folder: Path, tmp_path: Path) -> None:
    given = TemperatureConfig(fit_tokens=200)
    first = fit_temperature(network(), given, folder)
    for split in ("dev", "heldout"):
        write_split(folder, split, np.full(300, 7))
    assert fit_temperature(network(), given, folder) == first
    assert set(inspect.signature(fit_temperature).parameters) == {
        "inner",
        "settings",
        "data_folder",
    }
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    write_split(empty, "heldout", np.full(300, 7))
    with pytest.raises(DataError, match="train"):
        fit_temperature(network(), given, empty)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"edges": [2.0, 1.0], "temperatures": [1.0, 1.0, 1.0]}, "edges"),
        ({"edges": [2.0], "temperatures": [1.0]}, "temperatures"),
        ({"temperatures": [0.0]}, "temperatures"),
        ({"temperatures": [1.0, 2.0], "weights": [0.5]}, "weights"),
        ({"temperatures": [1.0, 2.0], "weights": [0.0, 0.0]}, "weights"),
    ],
)
def test_settings_that_contradict_each_other_are_named(table: dict, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        read_table(TemperatureConfig, table, where="recipe", section="predict.stack[0]")


def test_packing_fits_a_stage_over_the_stack_below_it(folder: Path) -> None:
    stack = [{"kind": "etlb", "lr": 1.0}, {"kind": "temperature", "fit_tokens": 200}]
    table = {"window": WINDOW, "stride": STRIDE, "stack": stack}
    fitted = fit_stack(Artifact(toy_model(), table, ByteTokenizer()), folder)
    below = EtlbPredictor(network(), EtlbConfig(lr=1.0), ByteTokenizer.bos_id)
    expected = fit_temperature(below, TemperatureConfig(fit_tokens=200), folder)
    assert fitted["stack"][0] == to_table(EtlbConfig(lr=1.0))
    assert fitted["stack"][1] == to_table(expected)
    assert expected.temperatures != (1.0,)


def test_packing_leaves_what_asks_for_no_fit(folder: Path) -> None:
    config = PredictConfig(stack=(TemperatureConfig(temperatures=(1.3,)),))
    assert fit_stack(Artifact(toy_model(), to_table(config)), folder) == to_table(config)
