"""quant.grid: what codes stand for."""

import numpy as np
import torch

from parbyte.quant.grid import Codes, dequantize, max_code


def test_a_grid_is_symmetric() -> None:
    assert [max_code(bits) for bits in range(2, 9)] == [1, 3, 7, 15, 31, 63, 127]


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
