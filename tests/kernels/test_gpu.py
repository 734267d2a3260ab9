"""The Triton kernels on a GPU against float64: bfloat16 errors, every element, ragged sizes."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from parbyte.kernels.attention import causal_attention, flash_attention_3
from parbyte.kernels.document_attention import document_ends, packed_attention
from parbyte.kernels.heads import HeadSplit, plain_split_heads, split_heads
from parbyte.kernels.loss import fused_cross_entropy, plain_cross_entropy
from parbyte.kernels.mlp import fused_mlp, plain_mlp
from parbyte.kernels.transfer import send
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.layers import rotary_tables

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-2
DOCUMENTS = ModelConfig(
    vocab_size=64,
    num_layers=3,
    model_dim=128,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=256,
    document_mask=True,
)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, device="cuda")).bfloat16()


def check_gradients(value: Tensor, expected: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
    assert relative_error(value, expected) < TOLERANCE
    pull = draw(*value.shape) if value.ndim else torch.ones((), device="cuda")
    value.backward(pull)
    expected.backward(pull.double())
    for a, b in pairs:
        assert a.grad is not None and b.grad is not None
        assert relative_error(a.grad, b.grad) < TOLERANCE


def with_gradients(case: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
    exact = [tensor.detach().double().requires_grad_() for tensor in case]
    return [tensor.requires_grad_() for tensor in case], exact


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_the_fused_mlp_and_its_gradients(slope: float) -> None:
    case = draw(1024, 512), draw(2048, 512, scale=0.04), draw(512, 2048, scale=0.02)
    inputs, exact = with_gradients(case)
    value = fused_mlp(*inputs, slope)
    expected = plain_mlp(*exact, slope)
    with torch.no_grad():
        assert relative_error(fused_mlp(*inputs, slope), expected) < TOLERANCE
    check_gradients(value, expected, list(zip(inputs, exact, strict=True)))


@pytest.mark.parametrize("rope_dims", [0, 16, 64])
@pytest.mark.parametrize(("lanes", "positions"), [(1, 1), (3, 300)])
def test_splitting_heads_and_its_gradients(lanes: int, positions: int, rope_dims: int) -> None:
    split = HeadSplit(8, 4, rope_dims)
    tables = [t.cuda() for t in rotary_tables(positions, 64, rope_dims, 1e4)]
    heads, gain = draw(lanes, positions, 16, 64), torch.rand(12, device="cuda") + 0.5
    inputs, exact = with_gradients((heads, gain))
    found = torch.cat(split_heads(*inputs, *tables, split), dim=2)
    exact_tables = [table.double() for table in tables]
    expected = torch.cat(plain_split_heads(*exact, *exact_tables, split), dim=2)
    check_gradients(found, expected, list(zip(inputs, exact, strict=True)))


def test_what_a_side_stream_sends_is_there_when_the_current_one_reads_it() -> None:
    device, side = torch.device("cuda"), torch.cuda.Stream()
    busy = draw(4096, 4096)
    arrays = [np.full(1 << 20, number, np.int64) for number in range(20)]
    sums = []
    for array in arrays:
        busy = busy @ busy * 1e-3
        sums.append(send(array, device, side).sum())
    expected = [number << 20 for number in range(20)]
    assert [int(total) for total in sums] == expected


@pytest.mark.skipif(flash_attention_3 is None, reason="FlashAttention-3 is not installed")
def test_flash_attention_3_and_its_gradients() -> None:
    inputs, exact = with_gradients(tuple(draw(2, n, 384, 64) for n in (8, 4, 4)))
    value = causal_attention(*inputs, mask=None)
    expected = causal_attention(*exact, mask=None)
    check_gradients(value, expected, list(zip(inputs, exact, strict=True)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_attention_inside_documents_and_its_gradients(share: float) -> None:
    inputs, exact = with_gradients((draw(2, 512, 8, 64), draw(2, 512, 4, 64), draw(2, 512, 4, 64)))
    is_start = torch.rand(2, 512) < share
    document = is_start.long().cumsum(1).cuda()
    same = document[:, None, :, None] == document[:, None, None, :]
    mask = same & torch.ones(512, 512, dtype=torch.bool, device="cuda").tril()
    ends = torch.from_numpy(document_ends(is_start.numpy())).cuda()
    expected = causal_attention(*(x.transpose(1, 2) for x in exact), mask=mask).transpose(1, 2)
    check_gradients(
        packed_attention(*inputs, ends), expected, list(zip(inputs, exact, strict=True))
    )


def test_packed_documents_are_compiled_once_whatever_their_number() -> None:
    model = GPT(DOCUMENTS, seed=1).cuda()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.set_compute_dtype(torch.bfloat16)
    masked = copy.deepcopy(model)
    counter = CompileCounterWithBackend("inductor")
    hidden = torch.compile(model.hidden, fullgraph=True, dynamic=False, backend=counter)
    for share in (0.5, 0.02, 0.1):
        tokens = torch.randint(2, DOCUMENTS.vocab_size, (2, 256))
        tokens[torch.rand(2, 256) < share] = DOCUMENTS.bos_id
        ends = torch.from_numpy(document_ends((tokens == DOCUMENTS.bos_id).numpy())).cuda()
        torch._dynamo.mark_dynamic(ends, 0)
        found, expected = hidden(tokens.cuda(), ends_E=ends), masked.hidden(tokens.cuda())
        assert relative_error(found, expected.double()) < 2 * TOLERANCE
    assert counter.frame_count == 1


@pytest.mark.parametrize("vocab_size", [1024, 5000, 8192])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 30.0), (2.0, 0.0)])
def test_the_fused_loss_and_its_gradients(vocab_size: int, scale: float, softcap: float) -> None:
    # More rows than one chunk of 8,192 ids takes.
    hidden, weight = draw(30_000, 64), draw(vocab_size, 64, scale=0.3)
    targets = torch.randint(vocab_size, (len(hidden),), device="cuda")
    targets[::7] = -100
    inputs, exact = with_gradients((hidden, weight))
    options = {"scale": scale, "softcap": softcap}
    value = fused_cross_entropy(*inputs, targets, **options)
    expected = plain_cross_entropy(exact[0], exact[1], None, targets, **options)
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    check_gradients(value, expected, list(zip(inputs, exact, strict=True)))


def test_the_fused_loss_needs_half_a_gibibyte() -> None:
    hidden = draw(98_304, 512).requires_grad_()
    weight = draw(8192, 512, scale=0.05).requires_grad_()
    targets = torch.randint(8192, (98_304,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = fused_cross_entropy(hidden, weight, targets, scale=1.0, softcap=30.0)
    assert torch.cuda.max_memory_allocated() - before <= 2**29
    loss.backward()
