"""Newton-Schulz orthogonalization of a stack of matrices, with the coefficients as data.

Shapes: N matrices of R rows and C columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Coefficients = Sequence[tuple[float, float, float]]

MUON_QUINTIC: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
"""Keller Jordan's fixed quintic, five times: singular values of 0.01..1 go to 0.68..1.13."""

POLAR_EXPRESS: Coefficients = (
    (8.15655, -22.48329, 15.87877),
    (4.04293, -2.80892, 0.50002),
    (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449),
    (2.34654, -1.70978, 0.42324),
)
"""Per-step optimal quintics: singular values of 0.01..1 go to 0.86..1.14. arXiv 2505.16932."""

_EPS = 1e-7


def orthogonalize(stack_NRC: Tensor, coefficients: Coefficients, *, dtype: torch.dtype) -> Tensor:
    """Bring every matrix near its polar factor U V^T: all singular values near 1.

    dtype: of the arithmetic and of the result, float32 or bfloat16. Each matrix is divided by its
    Frobenius norm, then X <- a X + (b A + c A^2) X with A = X X^T, for each (a, b, c).
    Source: Muon, https://kellerjordan.github.io/posts/muon; arXiv 2505.16932.
    """
    is_tall = stack_NRC.shape[-2] > stack_NRC.shape[-1]
    x = stack_NRC.mT if is_tall else stack_NRC
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x = (x / (norm + _EPS)).to(dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if is_tall else x
