"""Where packed documents end, against a loop; the kernel itself is in test_gpu.py."""

import numpy as np
import pytest
import torch

from parbyte.kernels.document_attention import can_pack_documents, document_ends


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 16)])
def test_every_start_and_every_row_ends_the_document_before(
    shape: tuple[int, int], share: float
) -> None:
    is_start = np.random.default_rng(5).random(shape) < share
    before = is_start.copy()
    rows, positions = shape
    expected = [0]
    for place in range(1, rows * positions + 1):
        is_last = place == rows * positions
        if is_last or place % positions == 0 or is_start[place // positions, place % positions]:
            expected.append(place)
    ends = document_ends(is_start)
    assert ends.tolist() == expected and ends.dtype == np.int32
    assert np.array_equal(is_start, before)


def test_only_a_gpu_in_half_precision_packs() -> None:
    assert can_pack_documents(torch.device("cuda"), torch.bfloat16)
    assert not can_pack_documents(torch.device("cuda"), torch.float32)
    assert not can_pack_documents(torch.device("cpu"), torch.bfloat16)
