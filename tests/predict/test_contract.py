"""Every predictor passes the whole audit: a new one is added to HONEST, or a test here fails.

The battery is black-box (parbyte.audit); beside it, the two computations must follow one law.
Shapes: B lanes, T positions, V vocab.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.audit import twins
from torch import Tensor

import parbyte.predict
from parbyte.audit.run import audit
from parbyte.audit.subject import AuditConfig
from parbyte.base.log import Console
from parbyte.predict.adapter_config import (
    EtlbConfig,
    LoraConfig,
    SlotConfig,
    TemperatureConfig,
    TTTConfig,
)
from parbyte.predict.build import build_row_stage
from parbyte.predict.carried import CarriedPredictor
from parbyte.predict.etlb import EtlbPredictor
from parbyte.predict.expert_config import ROW_STAGES
from parbyte.predict.lora import LoraPredictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.portable_ttt import PortableTTT
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import Probe
from parbyte.predict.slot import SlotPredictor
from parbyte.predict.temperature import TemperaturePredictor
from parbyte.predict.ttt import TTTPredictor

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
    "document_mask": True,
    "tied": False,
}


def neural(window: int, stride: int, **changes: object) -> Predictor:
    return NeuralPredictor(twins.toy_model(**changes), window=window, stride=stride)


def portable(window: int, stride: int, **changes: object) -> Predictor:
    return PortablePredictor(twins.toy_model(**changes), window=window, stride=stride)


def portable_ttt(
    window: int, stride: int, learning: dict[str, Any], **changes: object
) -> Predictor:
    model = twins.toy_model(**changes)
    return PortableTTT(model, TTTConfig(**learning), window=window, stride=stride)


def ttt(window: int, stride: int, **settings: Any) -> Predictor:
    rates = {"lr": 1e-2, "embed_lr": 1e-2, "scalar_lr": 1e-2}
    model = twins.toy_model(**EVERYTHING)
    return TTTPredictor(model, TTTConfig(**{**rates, **settings}), window=window, stride=stride)


def lora(**settings: Any) -> Predictor:
    config = LoraConfig(**{"rank": 2, "alpha": 4.0, "lr": 1e-2, **settings})
    return LoraPredictor(twins.toy_model(**EVERYTHING), config, window=24, stride=16)


def slot(**settings: Any) -> Predictor:
    config = SlotConfig(**{"steps": 3, "lr": 0.05, **settings})
    return SlotPredictor(twins.toy_model(**EVERYTHING), config, window=24, stride=16)


TEMPERATURES = TemperatureConfig(
    edges=(1.0, 2.0),
    temperatures=(0.7, 1.5, 0.8, 2.0, 1.0, 3.0),
    weights=(0.5, 0.5, 0.2, 0.8, 1, 0),
)


def stacked(inner: Predictor, *stages: dict[str, object]) -> Predictor:
    """Return row stages over a predictor, the lowest first."""
    for table in stages:
        config = ROW_STAGES[str(table["kind"])](**table)
        inner = build_row_stage(config, inner, twins.BOS, twins.LettersTokenizer())
    return inner


MIX = {"kind": "mix", "memory": 1 << 20}
LINEAR = {**MIX, "mode": "linear"}
GATED = {**MIX, "mode": "gated"}
NGRAM = {"kind": "ngram", "memory": 1 << 20}
BATCH_NGRAM = {"kind": "ngram", "learn": "chunk", "order": 4, "memory": 1 << 20}
TILT = {"kind": "tilt", "memory": 1 << 20, "lowest": 1}
SSE = {"kind": "sse"}
BYTES = {"kind": "bytes", "memory": 1 << 20}

HONEST: dict[str, tuple[Callable[[], Predictor], int]] = {
    "neural, sliding": (lambda: neural(12, 4), 12),
    "neural, separate windows": (lambda: neural(16, 16), 16),
    "neural, odd sizes": (lambda: neural(23, 9), 23),
    "neural, one window for all": (lambda: neural(256, 64), 256),
    "neural, every part of the model": (lambda: neural(16, 8, **EVERYTHING), 16),
    "portable, sliding": (lambda: portable(12, 4), 12),
    "portable, odd sizes, every part": (lambda: portable(23, 9, **EVERYTHING), 23),
    "neural, probed": (lambda: Probe(neural(12, 4), "network"), 12),
    "portable, learning": (lambda: portable_ttt(12, 4, {"lr": 1e-2, "embed_lr": 1e-2}), 0),
    "portable, learning twice, every part": (
        lambda: portable_ttt(23, 9, {"optimizer": "sgd", "lr": 0.03, "epochs": 2}, **EVERYTHING),
        0,
    ),
    "carried, every part": (
        lambda: CarriedPredictor(twins.toy_model(**EVERYTHING), window=24, stride=16),
        0,
    ),
    "ttt, adam": (lambda: ttt(16, 8), 0),
    "ttt, sgd, several epochs, clipped": (
        lambda: ttt(24, 16, optimizer="sgd", epochs=2, clip=0.5),
        0,
    ),
    "ttt, muon, cosine, the last block": (
        lambda: ttt(23, 18, optimizer="muon", lr=2e-3, schedule="cosine", horizon=99, train="last"),
        0,
    ),
    "lora": (lambda: lora(), 0),
    "lora in phases, some parts": (lambda: lora(parts=("qkv", "down"), phases=(60, 300)), 0),
    "slot, adam, hidden": (lambda: slot(fit="hidden"), 24),
    "slot, both, warm": (lambda: slot(fit="both", warm=True, focal=6), 0),
    "slot, lbfgs, bias": (lambda: slot(optimizer="lbfgs", ridge=0.1), 24),
    "etlb over the network": (
        lambda: EtlbPredictor(neural(24, 16), EtlbConfig(lr=2.0), twins.BOS),
        0,
    ),
    "temperatures over the network": (
        lambda: TemperaturePredictor(neural(24, 16), TEMPERATURES),
        24,
    ),
    "etlb over portable": (
        lambda: EtlbPredictor(portable(12, 5), EtlbConfig(lr=2.0), twins.BOS),
        0,
    ),
    "temperatures over portable": (
        lambda: TemperaturePredictor(portable(12, 4), TEMPERATURES),
        12,
    ),
    "mix over portable": (lambda: stacked(portable(12, 4), MIX), 12),
    "mix over neural": (lambda: stacked(neural(16, 16), MIX), 16),
    "linear mix over portable": (lambda: stacked(portable(12, 4), LINEAR), 12),
    "gated mix over portable": (lambda: stacked(portable(12, 5), GATED), 12),
    "n-gram posterior over neural": (lambda: stacked(neural(12, 5), NGRAM), 12),
    "n-gram posterior by chunks over neural": (lambda: stacked(neural(12, 5), BATCH_NGRAM), 0),
    "mix over n-gram posterior by chunks": (lambda: stacked(neural(12, 5), BATCH_NGRAM, MIX), 0),
    "tilt, mix and sse over portable": (lambda: stacked(portable(12, 5), TILT, MIX, SSE), 12),
    "bytes over portable": (lambda: stacked(portable(12, 5), BYTES), 12),
    "bytes over mix over neural": (lambda: stacked(neural(16, 16), MIX, BYTES), 16),
    "learning online (of the tests)": (twins.OnlineBigram, 0),
}
"""Name -> (how to make it, its window or 0). Every predictor of the package must be here."""

LANES = 3
QUICK = AuditConfig(noise_tokens=500, positions=6, sum_positions=2)


def final_predictors() -> set[type[Predictor]]:
    """Return the predictors of the package that nobody inherits from."""
    for module in pkgutil.iter_modules(parbyte.predict.__path__):
        importlib.import_module(f"parbyte.predict.{module.name}")
    found: set[type[Predictor]] = set()
    waiting = [Predictor]
    while waiting:
        inherited = waiting.pop().__subclasses__()
        waiting += inherited
        found |= {kind for kind in inherited if not kind.__subclasses__()}
    return {kind for kind in found if kind.__module__.startswith("parbyte.predict.")}


def rows(predictor: Predictor, tokens_BT: Tensor, *, by_steps: bool) -> Tensor:
    """Return the rows float32[B, T, V] of one computation or the other."""
    predictor.restore()
    parts, last_B = [], torch.full((len(tokens_BT),), twins.BOS)
    for chunk_BT in tokens_BT.split(predictor.chunk, dim=1):
        if by_steps:
            for token_B in chunk_BT.T:
                parts.append(predictor.step(last_B)[:, None])
                last_B = token_B
        else:
            parts.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    predictor.restore()
    return torch.cat(parts, dim=1)


def some_tokens(length: int) -> Tensor:
    return torch.randint(twins.VOCAB, (LANES, length), generator=torch.Generator().manual_seed(2))


def test_every_predictor_of_the_package_is_in_the_list() -> None:
    listed = {type(make()) for make, _ in HONEST.values()}
    missing = sorted(kind.__qualname__ for kind in final_predictors() - listed)
    assert not missing, f"add {missing} to HONEST in {Path(__file__).name}"


@pytest.mark.parametrize("name", HONEST)
def test_it_passes_the_whole_audit(name: str) -> None:
    make, window = HONEST[name]
    subject = twins.predictor_subject(name, make(), window)
    verdict = audit(subject, QUICK, Console(quiet=True))
    assert not verdict.findings, [finding.evidence for finding in verdict.findings]
    assert {"T1", "T2", "T3", "T4", "T6", "T8", "T10"} <= {c.check for c in verdict.checks}


@pytest.mark.parametrize("name", HONEST)
def test_steps_and_chunks_follow_one_law(name: str) -> None:
    predictor = HONEST[name][0]()
    tokens_BT = some_tokens(2 * predictor.chunk + predictor.chunk // 2 + 1)
    by_chunks = rows(predictor, tokens_BT, by_steps=False)
    by_steps = rows(predictor, tokens_BT, by_steps=True)
    assert by_chunks.dtype == by_steps.dtype == torch.float32
    assert by_chunks.shape == (*tokens_BT.shape, predictor.vocab_size)
    torch.testing.assert_close(by_steps, by_chunks, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", HONEST)
def test_restore_gives_the_first_state_bit_for_bit(name: str) -> None:
    predictor = HONEST[name][0]()
    tokens_BT = some_tokens(predictor.chunk + 1)
    first = rows(predictor, tokens_BT, by_steps=True)
    rows(predictor, some_tokens(2 * predictor.chunk) * 0 + 3, by_steps=True)
    predictor.step(torch.full((LANES,), twins.BOS))
    assert torch.equal(rows(predictor, tokens_BT, by_steps=True), first)
