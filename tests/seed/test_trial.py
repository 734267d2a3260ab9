"""Each rung before the audit, alone, over a toy network: convicted of its own fault alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from parbyte.audit.subject import AuditConfig
from parbyte.claims.slot import SampleSlot, per_sample_slot
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.seed.rungs import RUNGS, Rung
from parbyte.seed.scale import audited_scale, buckets_for, contest_scale
from parbyte.seed.trial import put_on_trial

VOCAB, WINDOW = 16, 16
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    bos_id=0,
    num_layers=2,
    model_dim=16,
    num_heads=2,
    num_kv_heads=2,
    mlp_dim=24,
    rope_dims=4,
    softcap=30.0,
)
AUDIT = AuditConfig(noise_tokens=1000, positions=4, sum_positions=1)
NAMED = {
    "float": [],
    "packed": [],
    "sliding": ["C4"],
    "+ TTT": ["C3", "C4"],
    "+ SLOT": ["C1", "C3"],
    "+ n-gram": ["C2"],
}


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(CONFIG, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    text = np.tile(np.random.default_rng(5).integers(1, VOCAB, 23), 12)
    return np.concatenate([[0], text]).astype(np.uint16)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_rung_is_convicted_of_what_it_breaks(rung: Rung, model: GPT, stream: np.ndarray) -> None:
    trial = put_on_trial(rung, model, stream, WINDOW, AUDIT)
    assert trial.conditions == NAMED[rung.name]
    assert trial.is_right
    assert trial.verdict == ("invalid" if NAMED[rung.name] else "not proven")


def test_a_rung_that_breaks_nothing_shown_is_said_to_escape(model: GPT, stream: np.ndarray) -> None:
    accused = replace(RUNGS[0], breaks={"C2": ("T2", "T6")})
    trial = put_on_trial(accused, model, stream, WINDOW, AUDIT)
    assert (trial.conditions, trial.escaped, trial.is_right) == ([], ["C2"], False)


def test_tables_shrink_with_the_text_to_the_contests_load() -> None:
    assert buckets_for(7_752_704) == 1 << 22
    for num_tokens in (2_000, 27_000, 1_000_000):
        assert 1.85 / 1.5 < num_tokens / buckets_for(num_tokens) < 1.85 * 1.5
    assert buckets_for(1) == 256


def test_at_the_contests_size_the_settings_are_the_published_ones() -> None:
    scale = contest_scale(2048, 11, 7_752_704)
    assert (scale.script.window, scale.script.stride, scale.script.batch) == (2048, 64, 128)
    assert (scale.in_place.chunk, scale.in_place.rows, scale.in_place.frozen_blocks) == (
        32_768,
        16,
        10,
    )
    mixer = scale.mixer
    assert (mixer.max_order, mixer.buckets, mixer.min_tokens) == (22, 1 << 22, 5000)
    assert scale.slot == SampleSlot()
    assert scale.script.repeats_tail and not scale.sliding.repeats_tail


def test_slot_moves_a_window_the_same_way_whatever_the_batch(
    model: GPT, stream: np.ndarray
) -> None:
    text_N = torch.from_numpy(stream.astype(np.int64))
    small = contest_scale(WINDOW, 2, len(stream))
    assert small.script.batch == 4
    script = replace(small.script, repeats_tail=False)
    usual = per_sample_slot(model, text_N, replace(script, batch=128), SampleSlot())
    # One batch holds all windows here, so the published eps belongs to their number.
    num_windows = len(script.starts(len(stream)))
    eps = SampleSlot().eps * num_windows / 4
    shrunk = per_sample_slot(model, text_N, script, SampleSlot(eps=eps))
    first = slice(0, 4 * script.stride)
    torch.testing.assert_close(shrunk.nats_M[first], usual.nats_M[first], atol=0.05, rtol=0.05)


def test_the_audited_batches_still_hold_overlapping_windows() -> None:
    script = audited_scale(2048, 11, 4096).script
    assert script.batch > 1 and script.stride < script.window <= 128
