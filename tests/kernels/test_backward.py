"""The way back gives the gradient of autograd, and a step is the optimizer's formula.

The reference is the network written down once more, in float64, for torch to differentiate.
Shapes: B lanes, C context, T positions of the chunk, S = C + T, V vocab, D model_dim.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.kernels.portable.backward import backward_
from parbyte.kernels.portable.descent import adam_, sgd_, sum_of_squares
from parbyte.kernels.portable.forward import forward
from parbyte.kernels.portable.net import cosine, new_memory
from parbyte.kernels.portable.walk import rows_of, walk
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.portable_weights import PortableWeights

VOCAB, BOS = 97, 3
PLAIN = ModelConfig(
    vocab_size=VOCAB, bos_id=BOS, model_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=24, rope_dims=4
)
CONFIGS = {
    "plain": PLAIN,
    "the default recipe's options": replace(
        PLAIN, smear="static", logit_scale=4.0, logit_bias=True, model_dim=24, num_heads=3,
        num_kv_heads=3, num_layers=3,
    ),
    "wider than a block": replace(PLAIN, model_dim=72, mlp_dim=130, num_heads=4, num_kv_heads=2),
    "grouped heads": replace(PLAIN, num_heads=4, num_kv_heads=1, rope_dims=0, ln_scale=True),
    "plain skips": replace(PLAIN, num_layers=5, skips="plain", resid_mix=False),
    "gated skips": replace(PLAIN, num_layers=4, skips="gated", xsa_layers=2, mlp_slope=0.0),
    "bigrams": replace(PLAIN, bigram_buckets=11, bigram_dim=9, smear="gated"),
    "value embeddings": replace(
        PLAIN, value_embed_dim=5, value_embed_layers=1, num_heads=4, xsa_layers=1, softcap=7.0
    ),
    "documents": replace(PLAIN, document_mask=True, tied=False, smear="static"),
}  # fmt: skip


def lively_model(config: ModelConfig) -> GPT:
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-7).sqrt()


def rotated(x_BSHK: Tensor, config: ModelConfig) -> Tensor:
    half, x = config.rope_dims // 2, x_BSHK.clone()
    for position in range(x.shape[1]):
        for j in range(half):
            angle = position * config.rope_base ** (-2 * j / config.rope_dims)
            one, other = x_BSHK[:, position, :, j], x_BSHK[:, position, :, half + j]
            x[:, position, :, j] = one * math.cos(angle) + other * math.sin(angle)
            x[:, position, :, half + j] = other * math.cos(angle) - one * math.sin(angle)
    return x


def constant_before(x_BS: Tensor, context: int) -> Tensor:
    """Return x, of which no gradient flows back to the context's positions (axis 1)."""
    return torch.cat([x_BS[:, :context].detach(), x_BS[:, context:]], dim=1)


def reference_embed(
    p: dict[str, Tensor], config: ModelConfig, tokens_BS: Tensor, context: int
) -> Tensor:
    previous_BS = F.pad(tokens_BS[:, :-1], (1, 0), value=-1)
    previous_BS = torch.where(tokens_BS == config.bos_id, -1, previous_BS)
    x = p["embed.table"][tokens_BS]
    if config.bigram_buckets:
        mixed = ((tokens_BS * 36313) ^ (previous_BS * 27191)) % (config.bigram_buckets - 1)
        bucket = torch.where(previous_BS < 0, config.bigram_buckets - 1, mixed)
        proj = p["embed.bigram.proj"] * p["embed.bigram.scale"]
        x = x + p["embed.bigram.table"][bucket] @ proj.T
    last = F.pad(constant_before(x, context)[:, :-1], (0, 0, 1, 0)) * (previous_BS >= 0)[..., None]
    if config.smear == "static":
        gate = p["embed.smear.gate"].sigmoid()
        x = last + gate * (x - last)
    elif config.smear == "gated":
        gate = p["embed.smear.gate"]
        logit = (x[..., : len(gate)] * gate).sum(-1, keepdim=True)
        x = x + p["embed.smear.scale"] * logit.sigmoid() * last
    return normed(x)


def reference_attention(
    p: dict[str, Tensor],
    config: ModelConfig,
    layer: int,
    x: Tensor,
    tokens_BS: Tensor,
    context: int,
) -> Tensor:
    name, (lanes, length, _) = f"blocks.{layer}.attn.", x.shape
    heads, groups, dim = config.num_heads, config.num_kv_heads, config.head_dim
    q = normed((x @ p[name + "q"].T).view(lanes, length, heads, dim))
    q = rotated(q * p[name + "gain"][:, None], config)
    k = rotated(normed((x @ p[name + "k"].T).view(lanes, length, groups, dim)), config)
    v = (x @ p[name + "v"].T).view(lanes, length, groups, dim)
    if name + "value_scale" in p:
        proj = p["value_embed.proj"] * p["value_embed.scale"]
        values = p["value_embed.table"][tokens_BS] @ proj.T
        v = v + values.view(lanes, length, groups, dim) * p[name + "value_scale"]
    k, v = constant_before(k, context), constant_before(v, context)
    k, v = (part.repeat_interleave(heads // groups, dim=2) for part in (k, v))
    score = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(dim)
    sees = torch.ones(length, length).tril().bool().expand(lanes, 1, -1, -1)
    if config.document_mask:
        document = (tokens_BS == config.bos_id).cumsum(1)
        sees = sees & (document[:, None, :, None] == document[:, None, None, :])
    y = torch.einsum("bhts,bshk->bthk", score.masked_fill(~sees, -math.inf).softmax(-1), v)
    if layer >= config.num_layers - config.xsa_layers:
        y = y - (y * v).sum(-1, keepdim=True) / (v * v).sum(-1, keepdim=True) * v
    return y.reshape(lanes, length, -1) @ p[name + "out"].T


def reference_rows(
    p: dict[str, Tensor], config: ModelConfig, tokens_BS: Tensor, context: int
) -> Tensor:
    """Return float64[B, T, V] log-probabilities after the positions behind the context."""
    start = reference_embed(p, config, tokens_BS, context)
    x, left, half = start, [], config.num_layers // 2
    for layer in range(config.num_layers):
        name = f"blocks.{layer}."
        if config.skips != "none" and half <= layer < 2 * half:
            skip = p["skip_weights"][layer - half] * left.pop()
            gate = p["skip_gates"][layer - half].sigmoid() if config.skips == "gated" else None
            x = x + skip if gate is None else skip + gate * (x - skip)
        if config.resid_mix:
            x = p[name + "resid_mix"][0] * x + p[name + "resid_mix"][1] * start
        scale = 1 / math.sqrt(layer + 1) if config.ln_scale else 1.0
        attended = reference_attention(p, config, layer, normed(x) * scale, tokens_BS, context)
        x = x + attended * p[name + "attn_scale"]
        hidden = F.leaky_relu((normed(x) * scale) @ p[name + "mlp.up"].T, config.mlp_slope).square()
        x = x + hidden @ p[name + "mlp.down"].T * p[name + "mlp_scale"]
        if layer < half:
            left.append(x)
    head = p["embed.table" if config.tied else "head"]
    logits = config.logit_scale * normed(x[:, context:]) @ head.T
    logits = logits + p["logit_bias"] if config.logit_bias else logits
    if config.softcap:
        logits = config.softcap * torch.tanh(logits / config.softcap)
    return logits.log_softmax(-1)


def some_tokens(lanes: int, length: int) -> Tensor:
    tokens = torch.randint(VOCAB, (lanes, length), generator=torch.Generator().manual_seed(0))
    tokens[-1, length // 2] = BOS
    return tokens


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("lanes", "context", "length"), [(3, 5, 9), (1, 0, 21), (2, 6, 1)])
def test_every_gradient_is_that_of_autograd(
    name: str, lanes: int, context: int, length: int
) -> None:
    config = CONFIGS[name]
    model = lively_model(config)
    tokens = some_tokens(lanes, context + length + 1)
    weight = torch.rand(lanes, length, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 0
    p = {key: value.double().requires_grad_() for key, value in model.named_parameters()}
    inputs, following = tokens[:, :-1], tokens[:, context + 1 :]
    nats = -reference_rows(p, config, inputs, context).gather(2, following[..., None])[..., 0]
    (nats * weight).sum().backward()

    weights = PortableWeights(model, context + length)
    memory = new_memory(weights.net, lanes, context + length)
    if context:
        walk(weights.net, memory, inputs[:, :context].numpy(), 0, skip=context, threads=1)
    rows = rows_of(inputs[:, context:].numpy(), context)
    trace = forward(weights.net, memory, *rows)
    grad_P = np.full_like(weights.flat_P, np.nan)
    backward_(
        weights.net, memory, trace, weights.params, weights.norm_scale_L, *rows,
        following.T.ravel().numpy(), weight.T.ravel().numpy(), weights.view(grad_P),
    )  # fmt: skip
    assert weights.pieces.keys() == p.keys()
    for key, value in p.items():
        ours, grad = grad_P[weights.pieces[key]], value.grad
        assert grad is not None
        size = max(float(grad.abs().max()), 0.1)
        np.testing.assert_allclose(ours, grad.ravel(), rtol=1e-3, atol=2e-5 * size, err_msg=key)


def test_adam_is_its_formula() -> None:
    random = np.random.default_rng(0)
    param, mean, square = random.standard_normal(40).astype(np.float32), np.zeros(40), np.zeros(40)
    ours, state = param.copy(), (np.zeros(40, np.float32), np.zeros(40, np.float32))
    expected = param.astype(np.float64)
    lr, beta1, beta2, eps, decay, factor = 0.03, 0.8, 0.95, 1e-6, 0.1, 0.5
    for step in range(1, 6):
        grad = random.standard_normal(40).astype(np.float32)
        grad[7] = 0
        mean = beta1 * mean + (1 - beta1) * grad * factor
        square = beta2 * square + (1 - beta2) * (grad.astype(np.float64) * factor) ** 2
        expected *= 1 - lr * decay
        corrected = np.sqrt(square / (1 - beta2**step)) + eps
        expected -= lr * mean / (1 - beta1**step) / corrected
        numbers = (factor, beta1, beta2, lr / (1 - beta1**step), (1 - beta2**step) ** -0.5, eps)
        adam_(ours, grad, *state, *map(np.float32, numbers), np.float32(1 - lr * decay))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-7)
    assert ours[7] == pytest.approx(param[7] * (1 - lr * decay) ** 5)


def test_descent_with_momentum_is_its_formula() -> None:
    random = np.random.default_rng(0)
    ours, mean = random.standard_normal(9).astype(np.float32), np.zeros(9)
    expected, state = ours.astype(np.float64), np.zeros(9, np.float32)
    for _ in range(5):
        grad = random.standard_normal(9).astype(np.float32)
        mean = 0.9 * mean + grad * 0.5
        expected = expected * 0.99 - 0.1 * mean
        sgd_(ours, grad, state, *map(np.float32, (0.5, 0.9, 0.1, 0.99)))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-7)


def test_no_number_is_subnormal_after_a_step() -> None:
    grad = np.array([1e-30, -1e-22, 1e-16, 0], np.float32)
    param, mean, square = np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32)
    for _ in range(20):
        adam_(param, grad, mean, square, *map(np.float32, (1, 0.5, 0.9, 0.1, 1, 1e-8, 1)))
        grad *= np.float32(1e-3)
    assert (param == 1).all()
    assert not mean.any()
    assert not square.any()


@pytest.mark.parametrize("length", [0, 1, 16, 37])
def test_squares_are_summed_exactly_enough(length: int) -> None:
    x = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    assert sum_of_squares(x) == pytest.approx(float((x.astype(np.float64) ** 2).sum()))


def test_the_cosine_needs_no_library() -> None:
    for angle in np.linspace(0, math.pi, 101):
        assert cosine(float(angle)) == pytest.approx(math.cos(angle), abs=1e-14)
