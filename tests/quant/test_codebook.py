"""quant.codebook: nearest entries as a loop finds them, and tables that training improves."""

import numpy as np
import pytest
import torch

from parbyte.quant.codebook import book_codes, book_points, train_book


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("width", "entries"), [(1, 16), (2, 64), (4, 32)])
def test_each_vector_gets_its_nearest_entry(width: int, entries: int) -> None:
    steps = gaussian(20, 8)
    book = train_book(gaussian(3000, width, seed=1), entries)
    codes = book_codes(steps, book)
    assert codes.shape == (20, 8 // width)
    points = book_points(codes, book).reshape(-1, width).double().numpy()
    table = book.double().numpy()
    for x, point in zip(steps.reshape(-1, width).double().numpy(), points, strict=True):
        distances = ((table - x) ** 2).sum(1)
        assert ((point - x) ** 2).sum() <= distances.min() + 1e-6


def test_training_comes_near_the_best_scalar_table() -> None:
    """Lloyd and Max: 8 levels leave 0.03454 of a Gaussian's variance."""
    sample = gaussian(30_000, 1)
    error = (sample - book_points(book_codes(sample, book := train_book(sample, 8)), book)).square()
    assert len(book) == 8
    assert 0.034 < float(error.mean()) < 0.036


def test_two_at_a_time_beat_one_at_a_time_at_equal_bits() -> None:
    sample = gaussian(20_000, 2)
    pairs = train_book(sample, 64)
    singles = train_book(sample.reshape(-1, 1), 8)
    errors = [
        float((sample - book_points(book_codes(sample, book), book)).square().mean())
        for book in (pairs, singles)
    ]
    assert errors[0] < errors[1]


def test_fewer_vectors_than_entries_are_kept_as_they_are() -> None:
    sample = gaussian(5, 2).half().float()
    book = train_book(sample, 16)
    assert torch.equal(book_points(book_codes(sample, book), book), sample)


def test_the_same_vectors_give_the_same_table_with_frequent_entries_in_the_middle() -> None:
    sample = gaussian(4000, 2)
    book = train_book(sample, 64)
    assert torch.equal(book, train_book(sample.clone(), 64))
    codes = book_codes(sample, book).numpy()
    near = np.abs(codes) < 16
    assert near.mean() > 0.6
