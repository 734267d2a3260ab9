"""quant.lattice: nearest points of E8 as a search finds them, and a code for every point."""

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parbyte.quant.lattice import WIDTH, lattice_codes, lattice_points

LIMIT = torch.tensor(127.0, dtype=torch.float64)


def is_in_e8(point: np.ndarray) -> bool:
    """Whole or half numbers throughout, with an even sum."""
    doubled = 2 * point
    whole = np.allclose(doubled, doubled.round())
    return whole and len({int(x) % 2 for x in doubled.round()}) == 1 and point.sum() % 2 == 0


def nearest_by_search(x: np.ndarray) -> float:
    """The least squared distance to any point within one step of every coordinate."""
    least = np.inf
    for moved in (0.0, 0.5):
        low = np.floor(x - moved)
        for up in itertools.product((0, 1), repeat=WIDTH):
            point = low + np.array(up) + moved
            if point.sum() % 2 == 0:
                least = min(least, float(((x - point) ** 2).sum()))
    return least


def test_points_are_the_nearest_that_a_search_finds() -> None:
    steps = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0)).double() * 3
    points = lattice_points(lattice_codes(steps, LIMIT)).double()
    for x, point in zip(steps.numpy(), points.numpy(), strict=True):
        assert is_in_e8(point)
        assert abs(float(((x - point) ** 2).sum()) - nearest_by_search(x)) < 1e-9


@given(hnp.arrays(np.int8, (3, 16), elements=st.integers(-127, 127)))
def test_any_eight_whole_numbers_are_the_code_of_a_point_of_its_own(numbers: np.ndarray) -> None:
    codes = torch.from_numpy(numbers)
    points = lattice_points(codes).double()
    assert all(is_in_e8(point) for point in points.reshape(-1, WIDTH).numpy())
    wide = torch.tensor(128.0, dtype=torch.float64)
    assert torch.equal(lattice_codes(points, wide), codes.double())


def test_codes_stay_within_their_limit() -> None:
    steps = 40 * torch.randn(50, 24, generator=torch.Generator().manual_seed(1))
    assert int(lattice_codes(steps, torch.tensor(7.0)).abs().max()) == 7


def test_the_error_is_a_seventh_less_than_that_of_whole_steps() -> None:
    steps = 5 * torch.randn(20_000, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    error = (steps - lattice_points(lattice_codes(steps, LIMIT))).square().mean()
    assert abs(float(error) - 929 / 12960) < 3e-4
    assert float((steps - steps.round()).square().mean()) > 0.083
