"""quant.rounding: clip rules and rounding, against a slow float64 reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parbyte.quant.grid import dequantize, max_code
from parbyte.quant.rounding import (
    SMALLEST_SCALE,
    frequency_factor,
    max_scale,
    round_to_nearest,
    row_reach,
    search_scale,
    std_scale,
)


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * 0.05


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounding_is_to_the_nearest_code_as_a_slow_loop_finds_it(bits: int) -> None:
    weight = gaussian(6, 9)
    scale = max_scale(weight, bits, digits=10)
    codes = round_to_nearest(weight, scale, bits)
    limit = max_code(bits)
    for r in range(6):
        step = float(scale[r])
        for c in range(9):
            distances = [abs(float(weight[r, c]) - q * step) for q in range(-limit, limit + 1)]
            assert distances[int(codes.codes[r, c]) + limit] <= min(distances) + 1e-9


@pytest.mark.parametrize("digits", [0, 3, 10])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_max_clips_nothing(bits: int, digits: int) -> None:
    weight = gaussian(20, 33)
    scale = max_scale(weight, bits, digits)
    codes = round_to_nearest(weight, scale, bits)
    half_step = 0.5 * scale.float()[:, None] * (1 + 1e-6)
    assert bool(((dequantize(codes) - weight).abs() <= half_step).all())


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_search_is_no_worse_than_max_on_any_row_and_better_on_most(bits: int) -> None:
    weight = gaussian(64, 128)
    error = {}
    for rule in (max_scale, search_scale):
        codes = round_to_nearest(weight, rule(weight, bits, 10), bits)
        error[rule] = (dequantize(codes) - weight).double().square().sum(1)
    assert bool((error[search_scale] <= error[max_scale]).all())
    assert int((error[search_scale] < error[max_scale]).sum()) > 20


def test_search_finds_the_best_of_its_candidates_on_each_row() -> None:
    weight = gaussian(5, 40).double()
    got = search_scale(weight.float(), 3, 10)
    for r in range(5):
        candidates = [float(got[r])] + [
            float(np.float16(weight[r].abs().max() / 3 * (1 - 0.03 * i))) for i in range(24)
        ]
        errors = []
        for step in candidates:
            rounded = (weight[r] / step).round().clamp(-3, 3) * step
            errors.append(float((rounded - weight[r]).square().sum()))
        assert errors[0] <= min(errors) * (1 + 1e-4)


def test_std_gives_steps_of_k_standard_deviations_over_the_largest_code() -> None:
    weight = gaussian(30, 256)
    scale = std_scale(weight, 6, 10, clip_std=12.85).double()
    std = weight.double().square().mean(1).sqrt()
    assert torch.allclose(scale, 12.85 * std / 31, rtol=2**-10)


def test_fewer_scale_digits_stay_within_half_a_digit_and_leave_the_error_alone() -> None:
    weight = gaussian(400, 128)
    exact = std_scale(weight, 8, 10, clip_std=57.0).double()
    coarse = std_scale(weight, 8, 3, clip_std=57.0).double()
    assert bool(((coarse / exact - 1).abs() <= 2**-4 + 2**-10).all())
    assert len(coarse.unique()) < 20
    errors = [
        float((dequantize(round_to_nearest(weight, s.half(), 8)) - weight).square().mean())
        for s in (exact, coarse)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


def test_rows_that_are_zero_constant_or_tiny_have_a_usable_scale() -> None:
    weight = torch.zeros(4, 16)
    weight[1] = 0.25
    weight[2] = 1e-9 * torch.arange(16)
    weight[3] = 3e4 * torch.linspace(-1, 1, 16)
    for rule in (max_scale, search_scale, lambda w, b, d: std_scale(w, b, d, 20.0)):
        scale = rule(weight, 8, 4)
        assert bool((scale >= SMALLEST_SCALE).all())
        assert bool(torch.isfinite(scale).all())
        restored = dequantize(round_to_nearest(weight, scale, 8))
        assert restored[0].tolist() == [0.0] * 16
        assert torch.allclose(restored[1], weight[1], rtol=0.1)
        assert restored[2].abs().max() < 1e-7
        assert torch.allclose(restored[3], weight[3], atol=0.1 * 3e4)


def test_a_matrix_of_zeros_stays_one() -> None:
    weight = torch.zeros(3, 5)
    assert not dequantize(round_to_nearest(weight, std_scale(weight, 4, 3, 9.0), 4)).any()
    assert row_reach(weight) == 0.0


def test_reach_is_the_largest_weight_in_standard_deviations_of_its_row() -> None:
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 3.0]])
    assert row_reach(weight) == pytest.approx(2.0)


@given(
    hnp.arrays(np.float32, (3, 8), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(2, 8),
    st.integers(0, 10),
)
def test_any_finite_matrix_gets_finite_scales_and_codes_on_the_grid(
    weight: np.ndarray, bits: int, digits: int
) -> None:
    tensor = torch.from_numpy(weight)
    for rule in (max_scale, search_scale, lambda w, b, d: std_scale(w, b, d, 14.0)):
        scale = rule(tensor, bits, digits)
        assert bool((torch.isfinite(scale) & (scale > 0)).all())
        codes = round_to_nearest(tensor, scale, bits)
        assert int(codes.codes.abs().max()) <= max_code(bits)
        assert math.isfinite(float(dequantize(codes).abs().max()))


def test_frequent_tokens_get_finer_steps_by_the_power_of_their_count() -> None:
    counts = torch.tensor([0, 1, 16, 4096])
    factor = frequency_factor(counts, 0.5)
    assert float(factor.double().log().mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(factor[0]) == float(factor[1])
    assert float(factor[1] / factor[3]) == pytest.approx(64.0, rel=1e-5)
    assert frequency_factor(counts, 0.0).tolist() == [1.0] * 4


def test_a_finer_step_never_clips_a_row_that_the_usual_one_does_not_clip() -> None:
    weight = gaussian(64, 128)
    factor = torch.logspace(-3, 1, 64)
    plain = std_scale(weight, 8, 10, 40.0).float()
    scale = std_scale(weight, 8, 10, 40.0, factor)
    largest = weight.abs().amax(1)
    assert bool((scale.float() * 127 >= largest * (1 - 2**-10)).all())
    coarser = factor >= 1
    assert torch.allclose(scale.float()[coarser], (plain * factor)[coarser], rtol=2**-9)
    already_clipped = std_scale(weight, 8, 10, 1.0, torch.full((64,), 0.01))
    assert torch.equal(already_clipped, std_scale(weight, 8, 10, 1.0))
