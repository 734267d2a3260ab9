"""The posterior of one chain of n-gram contexts over the row below.

    q_k(v) = (a_k(v) + c_k q_{k-1}(v)) / (sum a_k + c_k),    q_0 = p the row below
is, with kappa_k the product of all c_j / (sum a_j + c_j) up to j = k,
    q(v) = (p(v) + sum_k a_k(v) / (c_k kappa_{k-1})) / Z,    Z = 1 / kappa:
one number for each follower of each context, and one pass over the vocabulary. a and c by the
smoothing method: kernels.portable.evidence.
Shapes: B lanes, V vocab.
"""

import numpy as np

from parbyte.kernels.portable.counts import COUNT, HEAD, KINDS, LAST, LEAF, TOKEN, older_follower
from parbyte.kernels.portable.evidence import (
    SMALLEST_SHARE,
    Evidence,
    Experts,
    Floats,
    counts_longer,
    escape,
    find_path_,
    mass,
)
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log, log32, total

_ZERO = np.float32(0)


@compiled()
def posterior_row_(
    experts: Experts, evidence: Evidence, b: int, below_V: Floats, out_V: Floats
) -> None:
    """Write one lane's row; below_V: log p."""
    more_V, sum_V = np.zeros_like(out_V), np.empty_like(out_V)
    path_K, kappa = evidence.path_BK[b], 1.0
    top = find_path_(experts, 0, b, path_K)
    for order in range(experts.lowest[0], top + 1):
        kappa *= _add_level_(experts, order, path_K[order], kappa, more_V)
        kappa = max(kappa, SMALLEST_SHARE)
    for v in range(len(out_V)):
        sum_V[v] = exp(below_V[v]) + more_V[v]
    offset = np.float32(log(total(sum_V)))
    for v in range(len(out_V)):
        # Where nothing was seen, log p may be too small for its exponential.
        out_V[v] = (log32(sum_V[v]) if more_V[v] > _ZERO else below_V[v]) - offset


@compiled(is_lean=True)
def _add_level_(experts: Experts, order: int, node: int, kappa: float, more_V: Floats) -> float:
    """Add what one context gives to its followers; return its factor for all tokens."""
    cells, method, strength = experts.cells, experts.methods[0], experts.strengths[0]
    if cells[node + HEAD] == LEAF:
        left, weight = escape(method, strength, 1), mass(method, strength, 1)
        more_V[experts.history[cells[node + LAST]]] += np.float32(weight / (left * kappa))
        return left / (left + weight)
    left = escape(method, strength, cells[node + KINDS])
    field = KINDS if counts_longer(experts, 0, order) else COUNT
    follower, seen, scale = np.int64(cells[node + HEAD]), 0.0, 1.0 / (left * kappa)
    for _ in range(cells[node + KINDS]):
        weight = mass(method, strength, cells[follower + field])
        more_V[cells[follower + TOKEN]] += np.float32(weight * scale)
        seen += weight
        follower = older_follower(cells, follower)
    return left / (left + seen)
