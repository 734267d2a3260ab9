"""quant.grid: what codes stand for."""

from dataclasses import replace

import numpy as np
import torch

from parbyte.quant.grid import Codes, Fine, LowRank, Sparse, dequantize, limits_of, max_code


def test_a_grid_is_symmetric_and_one_bit_is_a_sign() -> None:
    assert [max_code(bits) for bits in range(1, 9)] == [1, 1, 3, 7, 15, 31, 63, 127]


def test_a_weight_is_its_code_times_its_rows_scale_in_float32() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(-127, 128, (7, 5)).astype(np.int8)
    scale = generator.uniform(1e-7, 2.0, 7).astype(np.float16)
    expected = codes.astype(np.float32) * scale.astype(np.float32)[:, None]
    got = dequantize(Codes(torch.from_numpy(codes), torch.from_numpy(scale), 8))
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), expected)


def test_a_stack_of_matrices_and_a_vector_have_their_own_scales() -> None:
    stack = Codes(torch.ones(2, 3, 4, dtype=torch.int8), torch.ones(2, 3).half(), 4)
    vector = Codes(torch.ones(4, dtype=torch.int8), torch.tensor(0.5).half(), 4)
    assert dequantize(stack).shape == (2, 3, 4)
    assert dequantize(vector).tolist() == [0.5] * 4


def test_groups_finer_columns_and_repairs_are_what_a_slow_loop_makes_of_them() -> None:
    generator = np.random.default_rng(1)
    rows, columns, groups, rank = 6, 12, 3, 2
    codes = generator.integers(-31, 32, (rows, columns)).astype(np.int8)
    scale = generator.uniform(0.01, 2.0, (rows, groups)).astype(np.float16)
    left, right = (generator.integers(-7, 8, (rank, n)).astype(np.int8) for n in (rows, columns))
    factors = [
        Codes(torch.from_numpy(part), torch.tensor([0.5, 0.25]).half(), 4) for part in (left, right)
    ]
    sparse = Sparse(torch.tensor([5, 40]), torch.tensor([1.5, -2.0]).half())
    item = Codes(
        torch.from_numpy(codes),
        torch.from_numpy(scale),
        5,
        fine=Fine(4, 6, 2),
        repairs=(LowRank(*factors), sparse),
    )
    got = dequantize(item).double().numpy()
    for r in range(rows):
        for c in range(columns):
            step = float(scale[r, c // 4]) * (0.25 if 4 <= c < 6 else 1.0)
            value = codes[r, c] * step
            value += sum(float(left[k, r]) * right[k, c] * (0.5, 0.25)[k] ** 2 for k in range(rank))
            value += {5: 1.5, 40: -2.0}.get(r * columns + c, 0.0)
            assert abs(got[r, c] - value) < 1e-4
    assert limits_of(item).tolist() == [15.0] * 4 + [63.0] * 2 + [15.0] * 6
    assert replace(item, bits=8).limit == 127
