"""Matrices that differ from lane to lane by a low-rank part.

Shapes: B lanes, T positions, I inputs, O outputs, R rank.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from parbyte.model.layers import drop


class LaneMatrix(NamedTuple):
    """W + gate up down: one matrix W for all lanes, and each lane's own low-rank part.

    shared: [O, I]. down: [B, R, I]. up: [B, O, R]. gate: [B, T, 1], 0 or 1 at each position.
    Source: LoRA, arXiv:2106.09685; one per document, batched: openai/parameter-golf PR 77.
    """

    shared: Tensor
    down: Tensor
    up: Tensor
    gate: Tensor


Matrix = Tensor | LaneMatrix


def project(x_BTI: Tensor, matrix: Matrix) -> Tensor:
    """Return [B, T, O]: every position times its lane's matrix."""
    if isinstance(matrix, Tensor):
        return F.linear(x_BTI, matrix)
    low_BTR = (x_BTI @ matrix.down.mT) * matrix.gate
    return torch.baddbmm(F.linear(x_BTI, matrix.shared), low_BTR, matrix.up.mT)


def add_projected(onto_BTO: Tensor, x_BTI: Tensor, matrix: Matrix, dropout: float) -> Tensor:
    """Return onto + what `project` returns, a share of it dropped, [B, T, O]."""
    return onto_BTO + drop(project(x_BTI, matrix), dropout)
