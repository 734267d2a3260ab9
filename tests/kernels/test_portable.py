"""The portable kernels compute exactly what their source says, one rounding an operation.

The references are numpy, one float32 operation at a time, in the order that the kernels state; and
the mathematics in float64.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from parbyte.kernels.portable import jit, numerics
from parbyte.kernels.portable.attention import gather_, score_, softmax_
from parbyte.kernels.portable.net import packed_shape, rotary_tables, sigmoid
from parbyte.kernels.portable.params import pack_
from parbyte.kernels.portable.weights import group_weights_, to_whole_numbers
from parbyte.model.layers import rotary_tables as torch_rotary_tables

Floats = NDArray[np.float32]
F = np.float32


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def pack_matrix(weight_NI: Floats) -> Floats:
    packed_PIO = np.zeros(packed_shape(weight_NI.shape), np.float32)
    pack_(weight_NI, np.ones(len(weight_NI), np.float32), packed_PIO)
    return packed_PIO


def kernel_exp(x_N: Floats) -> Floats:
    return np.array([numerics.exp(F(x)) for x in x_N], np.float32)


def exp_by_definition(x: Floats) -> Floats:
    x = np.minimum(np.maximum(x, F(-87)), F(88))
    whole = (x * F(1.44269504088896341) + F(12582912)) - F(12582912)
    rest = (x - whole * F(0.693359375)) - whole * F(-2.12194440e-4)
    series = np.full_like(x, F(1.9875691500e-4))
    for term in (
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ):
        series = series * rest + F(term)
    near_one = (series * (rest * rest) + rest) + F(1)
    return near_one * ((whole.astype(np.int32) + 127) << 23).view(np.float32)


def total_by_definition(x: Floats) -> np.float64:
    sums = np.zeros(16)
    whole = len(x) // 16 * 16
    for start in range(0, whole, 16):
        sums = sums + x[start : start + 16].astype(np.float64)
    for value in x[whole:]:
        sums[0] += np.float64(value)
    result = sums[0]
    for part in sums[1:]:
        result = result + part
    return result


def product_by_definition(x_RI: Floats, weight_NI: Floats) -> Floats:
    out_RN = np.zeros((len(x_RI), len(weight_NI)), np.float32)
    for i in range(x_RI.shape[1]):
        out_RN = out_RN + x_RI[:, i : i + 1] * weight_NI[:, i]
    return out_RN


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(8, 128, 200), (1, 7, 3), (5, 66, 64)])
def test_every_product_is_summed_in_order_with_two_roundings(
    rows: int, inputs: int, outputs: int
) -> None:
    x_RI, weight_NI = normal(rows, inputs), normal(outputs, inputs, seed=1)
    out = numerics.product(x_RI, pack_matrix(weight_NI))[:, :outputs]
    np.testing.assert_array_equal(out, product_by_definition(x_RI, weight_NI))
    np.testing.assert_allclose(out, x_RI.astype(np.float64) @ weight_NI.T, atol=2e-5)


def test_a_fused_product_would_be_noticed() -> None:
    x_RI, weight_NI = normal(8, 128), normal(64, 128, seed=1)
    fused_RN = np.zeros((8, 64), np.float32)
    for i in range(128):
        exact = x_RI[:, i : i + 1].astype(np.float64) * weight_NI[:, i]
        fused_RN = (fused_RN + exact).astype(np.float32)
    assert not np.array_equal(numerics.product(x_RI, pack_matrix(weight_NI)), fused_RN)


def test_no_kernel_has_a_fused_instruction() -> None:
    numerics.product(normal(2, 8), pack_matrix(normal(3, 8)))
    softmax_(normal(9))
    for kernel in (numerics.product, numerics.multiply_, softmax_):
        for code in kernel.inspect_asm().values():  # type: ignore[attr-defined]
            assert code
            assert "fmadd" not in code
            assert "fnmadd" not in code


def test_the_exponential_is_its_polynomial_bit_for_bit() -> None:
    x = np.concatenate([np.linspace(-90, 90, 4001, dtype=np.float32), normal(2000)])
    np.testing.assert_array_equal(kernel_exp(x), exp_by_definition(x))


def test_a_softmax_is_its_definition_bit_for_bit() -> None:
    for length in (1, 15, 16, 33, 300):
        x = normal(length, seed=length) * F(9)
        expected = exp_by_definition(x - x.max())
        expected = expected * F(1.0 / total_by_definition(expected))
        softmax_(x)
        np.testing.assert_array_equal(x, expected)


def test_functions_are_close_to_the_mathematics() -> None:
    x = np.linspace(-80, 80, 3001, dtype=np.float32)
    np.testing.assert_allclose(kernel_exp(x), np.exp(x.astype(np.float64)), rtol=2e-7)
    tanh = np.array([numerics.tanh(F(value / 10)) for value in x])
    np.testing.assert_allclose(tanh, np.tanh((x / 10).astype(np.float64)), rtol=3e-7)
    logs = [numerics.log(float(value)) for value in np.exp(np.linspace(-20, 20, 501))]
    np.testing.assert_allclose(logs, np.linspace(-20, 20, 501), atol=1e-14, rtol=1e-14)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(sigmoid(x), exact, rtol=1e-7)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 100])
def test_attention_is_summed_in_order(length: int) -> None:
    query_K, key_KC, share_S = normal(10), normal(10, 128, seed=1), normal(length, seed=2)
    scores_S, expected_S = np.empty(length, np.float32), np.zeros(length, np.float32)
    score_(query_K, key_KC, F(0.3), scores_S)
    for i in range(10):
        expected_S = expected_S + (query_K[i] * F(0.3)) * key_KC[i, :length]
    np.testing.assert_array_equal(scores_S, expected_S)
    value_CK, y_K, expected_K = normal(128, 12), np.empty(12, np.float32), np.zeros(12, np.float32)
    gather_(share_S, value_CK, y_K)
    for s in range(length):
        expected_K = expected_K + share_S[s] * value_CK[s]
    np.testing.assert_array_equal(y_K, expected_K)


@pytest.mark.parametrize(("rope_dims", "base"), [(16, 1e4), (0, 1e4), (32, 5e5)])
def test_rotary_tables_are_those_of_the_model(rope_dims: int, base: float) -> None:
    tables = rotary_tables(5000, 32, rope_dims, base)
    for ours, theirs in zip(tables, torch_rotary_tables(5000, 32, rope_dims, base), strict=True):
        np.testing.assert_allclose(ours, theirs[:, 0].numpy(), atol=6e-8)


@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 99))
def test_frequencies_are_whole_and_fill_the_coder(width: int, rows: int, seed: int) -> None:
    weights = np.exp(normal(rows, width, seed=seed) * F(20)).clip(F(1e-30), F(1e30))
    free = (1 << 24) - width
    whole = to_whole_numbers(weights, free)
    assert whole.dtype == np.float32
    assert (whole == np.floor(whole)).all()
    assert (whole >= 0).all()
    assert (whole.astype(np.int64).sum(axis=1) == free).all()
    shares = weights / weights.sum(axis=1, keepdims=True, dtype=np.float64)
    assert (np.abs(whole / free - shares) <= (width + 2) / free).all()


def test_groups_sum_their_tokens_and_missing_tokens_are_next_to_impossible() -> None:
    log_probs = torch.from_numpy(normal(3, 23)).log_softmax(-1).numpy()
    log_probs[0, 4] = -200.0
    weights, sums = np.empty((3, 4, 8), np.float32), np.empty((3, 4), np.float32)
    group_weights_(log_probs, weights, sums)
    np.testing.assert_array_equal(
        sums, [[F(total_by_definition(g)) for g in row] for row in weights]
    )
    np.testing.assert_allclose(sums[1:].sum(axis=1), 1, atol=1e-6)
    assert weights[0, 0, 4] == F(1e-30)
    assert (weights[:, 2, 7:] == F(1e-30)).all()
    assert (weights[:, 3] == F(1e-30)).all()


def test_kept_code_that_cannot_be_added_to_is_used_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path))
    kept = jit._cache_folder()
    assert kept is not None and kept.parent == tmp_path
    (kept / "index").write_bytes(b"kept code")
    monkeypatch.setattr(jit, "_is_writable", lambda folder: False)
    copy = jit._cache_folder()
    assert copy is not None and tmp_path not in copy.parents
    assert (copy / "index").read_bytes() == b"kept code"
    assert jit._cache_folder() == copy


def test_code_goes_to_the_users_cache_where_the_package_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder ought to be")
    monkeypatch.setattr(jit.config, "CACHE_DIR", "")
    monkeypatch.setattr(jit, "_USER_CACHE", tmp_path / "user")
    monkeypatch.setattr(jit, "_is_writable", lambda folder: "user" in folder.parts)
    assert jit._cache_folder().parent == tmp_path / "user"  # type: ignore[union-attr]
    monkeypatch.undo()
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(blocked))
    assert jit._cache_folder() is None

    @jit.compiled(is_entry=True)
    def double(x: float) -> float:
        return x + x

    assert double(2.0) == 4.0


def test_without_numba_one_line_says_so() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from parbyte.base.errors import ResourceError\n"
        "try: import parbyte.predict.portable\n"
        "except ResourceError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "engine 'portable' needs numba, which is not installed: pip install numba\n"
    )


def test_log32_is_the_logarithm() -> None:
    x = np.exp(np.linspace(-87, 88, 20_001)).astype(np.float32)
    found = np.array([numerics.log32(F(value)) for value in x], np.float64)
    expected = np.log(x.astype(np.float64))
    assert np.all(np.abs(found - expected) <= 2e-7 * np.maximum(1.0, np.abs(expected)))
