"""Causal attention against a loop in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from parbyte.kernels.attention import (
    attend_by_flash_3,
    causal_attention,
    lower_right_mask,
)
from parbyte.model import attention
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT


def attend_slowly(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Loop over lanes, heads and queries in float64; heads of one group share keys."""
    lanes, heads, num_queries, head_dim = q.shape
    groups, num_keys = k.shape[1], k.shape[2]
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(lanes):
        for h in range(heads):
            g = h // (heads // groups)
            for t in range(num_queries):
                last = num_keys - num_queries + t
                seen = [s for s in range(last + 1) if allowed is None or bool(allowed[b, 0, t, s])]
                logits = [
                    float(q[b, h, t].double() @ k[b, g, s].double()) / math.sqrt(head_dim)
                    for s in seen
                ]
                peak = max(logits)
                weights = [math.exp(z - peak) for z in logits]
                for s, weight in zip(seen, weights, strict=True):
                    out[b, h, t] += weight / sum(weights) * v[b, g, s].double()
    return out


def make_qkv(heads: int, groups: int, num_queries: int, num_keys: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(heads * 100 + num_queries * 10 + num_keys)
    shapes = (heads, num_queries), (groups, num_keys), (groups, num_keys)
    return tuple(torch.randn(2, n, t, 6, generator=generator) * 2 for n, t in shapes)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(7, 7), (1, 1), (1, 5), (3, 8)])
def test_attention_equals_a_loop_over_the_last_queries(
    groups: int, num_queries: int, num_keys: int
) -> None:
    q, k, v = make_qkv(4, groups, num_queries, num_keys)
    out = causal_attention(q, k, v, mask=None)
    torch.testing.assert_close(out.double(), attend_slowly(q, k, v), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("num_queries", [1, 4])
def test_a_mask_hides_positions_and_carries_its_own_causality(num_queries: int) -> None:
    q, k, v = make_qkv(4, 2, num_queries, 6)
    mask = lower_right_mask(num_queries, 6, q.device).repeat(2, 1, 1, 1)
    mask[1, :, :, :2] = False
    out = causal_attention(q, k, v, mask=mask)
    torch.testing.assert_close(out.double(), attend_slowly(q, k, v, mask), atol=2e-6, rtol=1e-5)


def test_a_later_key_never_moves_an_earlier_query() -> None:
    q, k, v = make_qkv(4, 2, 5, 5)
    before = causal_attention(q, k, v, mask=None)
    k[:, :, 3] += 1.0
    v[:, :, 3] -= 1.0
    after = causal_attention(q, k, v, mask=None)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3], after[:, :, 3])


def test_strided_views_give_what_contiguous_tensors_give() -> None:
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in make_qkv(4, 2, 5, 5))
    expected = causal_attention(q.contiguous(), k.contiguous(), v.contiguous(), mask=None)
    torch.testing.assert_close(causal_attention(q, k, v, mask=None), expected)


@pytest.mark.parametrize("returns_sums", [False, True])
def test_the_package_is_given_positions_before_heads(returns_sums: bool) -> None:
    q, k, v = make_qkv(4, 2, 5, 5)

    def package(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Any:
        assert causal and q.shape == (2, 5, 4, 6) and k.shape == v.shape == (2, 5, 2, 6)
        y = causal_attention(*(x.transpose(1, 2) for x in (q, k, v)), mask=None).transpose(1, 2)
        return (y, None) if returns_sums else y

    found = attend_by_flash_3(package, q, k, v)
    torch.testing.assert_close(found.double(), attend_slowly(q, k, v), atol=2e-6, rtol=1e-5)


def test_what_a_decoder_has_to_follow_asks_for_bits_that_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def attend(*args: Tensor, repeatable: bool, **options: Any) -> Tensor:
        asked.append(repeatable)
        return causal_attention(*args, repeatable=repeatable, **options)

    monkeypatch.setattr(attention, "causal_attention", attend)
    config = ModelConfig(
        vocab_size=9, num_layers=1, model_dim=16, num_heads=2, num_kv_heads=1, rope_dims=4
    )
    model, tokens = GPT(config, seed=0), torch.zeros(1, 4, dtype=torch.int64)
    for mode in (True, False):  # what learns in training, and from a scored text
        model.train(mode)(tokens, tokens).backward()
    with torch.inference_mode():
        model.hidden(tokens, model.new_cache(1, 8))  # the context of coded tokens
        model.hidden(tokens)  # rows that are only measured
    assert asked == [False, True, True, False]
