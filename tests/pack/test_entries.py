"""pack.entries: any tensor of codes with all that may belong to it, and hostile rows."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError
from parbyte.pack.container import Container, PayloadWriter
from parbyte.pack.entries import TensorEntry, read_entry, restore_codes, write_entry
from parbyte.pack.tensors import shrink_codes
from parbyte.quant.grid import Codes, Fine, LowRank, Sparse, dequantize

CODERS = ("range", "brotli")


def codes_of(generator: np.random.Generator, shape: tuple[int, ...], limit: int) -> torch.Tensor:
    return torch.from_numpy(generator.integers(-limit, limit + 1, shape).astype(np.int8))


def scales_of(generator: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(np.exp(generator.normal(size=shape)), np.float16))


@st.composite
def items(draw: st.DrawFn) -> Codes:
    """Codes of any grid, with or without groups, finer columns and repairs."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, columns = draw(st.integers(1, 9)), 8 * draw(st.integers(1, 4))
    grid = draw(st.sampled_from(["uniform", "e8", "codebook"]))
    bits = draw(st.integers(1, 8))
    groups = draw(st.sampled_from([0, 1, 2, 8]))
    scale = scales_of(generator, (rows, groups) if groups else (rows,))
    repairs: list[LowRank | Sparse] = []
    if draw(st.booleans()):
        rank = draw(st.integers(1, min(rows, columns)))
        factors = [
            Codes(codes_of(generator, (rank, n), 7), scales_of(generator, (rank,)), 4)
            for n in (rows, columns)
        ]
        repairs.append(LowRank(*factors))
    if draw(st.booleans()):
        count = draw(st.integers(1, rows * columns))
        index = np.sort(generator.permutation(rows * columns)[:count])
        value = torch.from_numpy(generator.normal(size=count).astype(np.float16))
        repairs.append(Sparse(torch.from_numpy(index), value))
    if grid == "codebook":
        entries, width = draw(st.sampled_from([2, 7, 256])), draw(st.sampled_from([1, 2, 8]))
        book = torch.from_numpy(generator.normal(size=(entries, width)).astype(np.float16))
        index = generator.integers(0, entries, (rows, columns // width)) - entries // 2
        codes = torch.from_numpy(index.astype(np.int8))
        return Codes(codes, scale, bits, "codebook", book=book, repairs=tuple(repairs))
    fine = None
    if grid == "uniform" and draw(st.booleans()):
        start = draw(st.integers(0, columns - 1))
        fine = Fine(start, draw(st.integers(start + 1, columns)), draw(st.integers(1, 4)))
    limit = 1 if bits == 1 else 2 ** (bits - 1) - 1
    codes = codes_of(generator, (rows, columns), limit)
    return Codes(codes, scale, bits, grid, fine, repairs=tuple(repairs))


def written(item: Codes) -> tuple[dict[str, Any], bytes]:
    payload = PayloadWriter()
    row = write_entry(item, shrink_codes(item, CODERS), CODERS, payload)
    return json.loads(json.dumps({"name": "x", **row})), payload.payload()


def restored(row: dict[str, Any], payload: bytes) -> tuple[TensorEntry, Codes]:
    entry = read_entry(row)
    return entry, restore_codes(Container({}, memoryview(payload), 0), entry)


@given(items())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_tensor_comes_back_to_the_bit_and_its_streams_tile_the_payload(item: Codes) -> None:
    row, payload = written(item)
    entry, got = restored(row, payload)
    assert torch.equal(got.codes, item.codes) and torch.equal(got.scale, item.scale)
    assert (got.bits, got.grid, got.fine, got.shape) == (
        item.bits,
        item.grid,
        item.fine,
        item.shape,
    )
    assert torch.equal(dequantize(got), dequantize(item))
    assert sum(placement.length for placement in entry.placements()) == len(payload)


def full_item() -> Codes:
    generator = np.random.default_rng(0)
    factors = [
        Codes(codes_of(generator, (2, n), 7), scales_of(generator, (2,)), 4) for n in (6, 16)
    ]
    sparse = Sparse(torch.tensor([0, 9, 95]), torch.tensor([1.0, 2.0, 3.0]).half())
    return Codes(
        codes_of(generator, (6, 16), 7),
        scales_of(generator, (6, 2)),
        4,
        fine=Fine(8, 12, 2),
        repairs=(LowRank(*factors), sparse),
    )


EDITS: dict[str, dict[str, Any]] = {
    "'groups'": {"groups": 3},
    "'groups' in its header is 0": {"groups": 0},
    "'groups' in its header is 17": {"groups": 17},
    "'groups' in its header is True": {"groups": True},
    "no columns": {"fine": [8, 8, 2]},
    "'fine' in its header is 17": {"fine": [8, 17, 2]},
    "'fine' in its header is 5": {"fine": [8, 12, 5]},
    "no start": {"fine": [8, 12]},
    "'grid' in its header is e9": {"grid": "e9"},
    "both a grid and finer": {"grid": "e8"},
    "'book' in its header is 257": {"book": [257, 2, ["raw", 0, 0]]},
    "'book' in its header is 3": {"book": [4, 3, ["raw", 0, 0]]},
    "impossible size": {"book": [0, 2, ["raw", 0, 0]]},
    "beside 'book'": {"grid": "e8", "book": [4, 2, ["raw", 0, 0]]},
    "'low_rank' in its header is no pair": {"low_rank": []},
    "'low_rank' in its header is no table": {"low_rank": [1, 2]},
    "'sparse' in its header is 97": {"sparse": [97, ["raw", 0, 0], ["raw", 0, 0]]},
    "no count": {"sparse": [3]},
    "must have": {"run": "rm -rf"},
    "has 0 bits": {"bits": 0},
}


@pytest.mark.parametrize("reason", EDITS)
def test_an_impossible_row_is_refused_for_its_reason(reason: str) -> None:
    row, _ = written(full_item())
    with pytest.raises(ArtifactError) as caught:
        read_entry({**row, **EDITS[reason]})
    assert reason in str(caught.value)


@pytest.mark.parametrize("shape", [[3, 16], [2, 6, 16], [2], [2**20, 2**20], [0, 16]])
def test_a_factor_of_another_shape_is_refused(shape: list[int]) -> None:
    row, _ = written(full_item())
    row["low_rank"][1]["shape"] = shape
    with pytest.raises(ArtifactError):
        read_entry(row)


def test_factors_have_no_repairs_of_their_own() -> None:
    row, _ = written(full_item())
    row["low_rank"][0]["low_rank"] = row["low_rank"]
    with pytest.raises(ArtifactError, match="must have"):
        read_entry(row)


def test_a_lattice_needs_eight_columns_and_a_book_its_width() -> None:
    plain = Codes(torch.zeros(3, 12, dtype=torch.int8), torch.ones(3).half(), 4)
    row, _ = written(plain)
    with pytest.raises(ArtifactError, match="'grid'"):
        read_entry({**row, "grid": "e8"})
    with pytest.raises(ArtifactError, match="'book' in its header is 8 of 12"):
        read_entry({**row, "book": [4, 8, ["raw", 0, 0]]})


def test_a_correction_beyond_the_tensor_is_refused() -> None:
    row, payload = written(full_item())
    coder, start, length = row["sparse"][1]
    assert coder == "raw"
    far = payload[:start] + b"\xff" * length + payload[start + length :]
    with pytest.raises(ArtifactError, match="outside its tensor"):
        restored(row, far)


def test_an_index_beyond_its_book_is_refused() -> None:
    book = torch.ones(256, 1).half()
    codes = torch.arange(-128, 128).to(torch.int8).reshape(8, 32)
    item = Codes(codes, torch.ones(8).half(), 8, "codebook", book=book)
    row, payload = written(item)
    coder, start, _ = row["book"][2]
    row["book"] = [255, 1, [coder, start, row["book"][2][2]]]
    with pytest.raises(ArtifactError):
        restored(row, payload)
