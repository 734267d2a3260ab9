"""Codebooks: D weights at a time become one entry of a table that was trained on all of them.

The table travels in the file as float16. Its entries are sorted so that frequent ones lie in the
middle: coders of numbers then find what they look for. Source: Lloyd 1982, "Least squares
quantization in PCM", IEEE Trans. Inf. Theory 28. Shapes: N vectors, K entries, D weights an entry.
"""

import torch
from torch import Tensor

_ROUNDS = 40
_MOST_VECTORS = 32_768
_PIECE = 65_536


def train_book(vectors_ND: Tensor, num_entries: int) -> Tensor:
    """Return a float16[K, D] table of small squared error, the same for the same vectors."""
    generator = torch.Generator().manual_seed(0)
    order_N = torch.randperm(len(vectors_ND), generator=generator)[:_MOST_VECTORS]
    sample_ND = vectors_ND[order_N].to(torch.float32)
    book_KD = sample_ND[torch.arange(num_entries) * len(sample_ND) // num_entries]
    for _ in range(_ROUNDS):
        nearest_N = _nearest(sample_ND, book_KD)
        sums_KD = torch.zeros_like(book_KD).index_add_(0, nearest_N, sample_ND)
        counts_K = torch.bincount(nearest_N, minlength=num_entries)
        # An entry that nobody chose moves to where the error is largest.
        means_KD = sums_KD / counts_K.clamp_min(1).unsqueeze(-1)
        empty = torch.nonzero(counts_K == 0).flatten()[: len(sample_ND)]
        error_N = (sample_ND - book_KD[nearest_N]).square().sum(-1)
        means_KD[empty] = sample_ND[error_N.topk(len(empty)).indices]
        book_KD = means_KD
    return _sorted(book_KD).clamp(-65504.0, 65504.0).to(torch.float16)


def book_codes(steps: Tensor, book_KD: Tensor) -> Tensor:
    """Return int8[..., C / D], the nearest entries' numbers less K / 2, of [..., C] steps."""
    num_entries, width = book_KD.shape
    vectors = steps.unflatten(-1, (-1, width))
    index = _nearest(vectors.reshape(-1, width), book_KD.to(vectors.dtype))
    return (index - num_entries // 2).to(torch.int8).reshape(vectors.shape[:-1])


def book_points(codes: Tensor, book_KD: Tensor) -> Tensor:
    """Return the entries that codes stand for, float32[..., C]."""
    index = codes.long() + len(book_KD) // 2
    return book_KD.to(torch.float32)[index].flatten(-2)


def _nearest(vectors_ND: Tensor, book_KD: Tensor) -> Tensor:
    pieces = vectors_ND.split(_PIECE)
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(p, book_KD, compute_mode=mode).argmin(-1) for p in pieces])


def _sorted(book_KD: Tensor) -> Tensor:
    """Sort by length, those of negative first weights downwards before the others upwards."""
    length_K = book_KD.norm(dim=-1)
    return book_KD[torch.argsort(torch.where(book_KD[:, 0] < 0, -length_K, length_K), stable=True)]
