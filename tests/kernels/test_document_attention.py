"""Attention by blocks of documents against a float64 loop; test_gpu.py has the gradients."""

import pytest
import torch
from torch import Tensor

from parbyte.kernels.document_attention import BLOCK, document_attention, document_blocks

LANES, HEADS, GROUPS, WIDTH = 2, 4, 2, 8


def draw_case(num_positions: int, share: float) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(4)
    sizes = (HEADS, GROUPS, GROUPS)
    case = [torch.randn(LANES, n, num_positions, WIDTH, generator=generator) for n in sizes]
    is_start = torch.rand(LANES, num_positions, generator=generator) < share
    return case, is_start.long().cumsum(1)


def reference(q: Tensor, k: Tensor, v: Tensor, document: Tensor) -> Tensor:
    y = torch.zeros_like(q)
    for lane in range(LANES):
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            for t in range(q.shape[2]):
                seen = [s for s in range(t + 1) if document[lane, s] == document[lane, t]]
                logits = k[lane, group, seen] @ q[lane, head, t] / WIDTH**0.5
                y[lane, head, t] = logits.softmax(0) @ v[lane, group, seen]
    return y


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_query_sees_its_document_up_to_itself(share: float) -> None:
    case, document = draw_case(BLOCK, share)
    y = document_attention(*case, document_blocks(document))
    expected = reference(*(tensor.double() for tensor in case), document)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
