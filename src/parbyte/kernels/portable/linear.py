"""A weighted sum of the experts' distributions, the row below among them.

    q(v) = p(v) sum_i lambda_i share_i exp(f_i(v)),    share_0 = 1, f_0 = 0

Learned: lambda is the mean of the picked rows, each of them a distribution over the experts that
moves towards the posterior, lambda_i q_i(x) / sum_j lambda_j q_j(x), once the token x is known.
Gated: the experts share g = 0.20 + 0.55 sigmoid(2 (H - 2.5)), H the entropy of the row below in
nats (PR 1430's gate, which looks at the row below alone).

Shapes: B lanes, V vocab, E experts (the row below, the chain of n-grams, match, recent), R rows.
"""

import numpy as np

from parbyte.kernels.portable.evidence import CHAIN, MATCH, NUM, RECENT, Doubles, Evidence, Floats
from parbyte.kernels.portable.geometric import GATED, Mixer
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log, log32, sigmoid, total

NUM_EXPERTS = 4
_BASE, _SPAN, _SLOPE, _CENTRE = 0.20, 0.55, 2.0, 2.5
_ONE = np.float32(1)


@compiled()
def mix_linear_row_(
    mixer: Mixer, evidence: Evidence, b: int, entropy: float, out_V: Floats
) -> None:
    """Write one lane's row, and keep each expert's part of the factor on p."""
    below_V, recent_V = mixer.below_BV[b], evidence.recent_BV[b]
    share_E = mixer.shares_BE[b]
    _weigh_(mixer, b, entropy, share_E)
    for expert in (CHAIN, MATCH, RECENT):
        share_E[1 + expert] *= evidence.shares_B3[b, expert]
    rest = np.float32(share_E[0] + share_E[1 + CHAIN] + share_E[1 + MATCH])
    recent = np.float32(share_E[1 + RECENT])
    for v in range(len(out_V)):
        out_V[v] = rest + recent * exp(recent_V[v])
    last = evidence.inputs_BCI.shape[2] - 1
    for c in range(evidence.facts_B4[b, NUM]):
        match = exp(evidence.inputs_BCI[b, c, last - 1]) - _ONE
        more = share_E[1 + CHAIN] * np.float64(evidence.ratios_BC[b, c] - _ONE)
        more += share_E[1 + MATCH] * np.float64(match)
        out_V[evidence.tokens_BC[b, c]] += np.float32(more)
    for v in range(len(out_V)):
        out_V[v] = below_V[v] + log32(out_V[v])
    _normalise_(out_V)


@compiled()
def _normalise_(out_V: Floats) -> None:
    """Take away what rounding has left of the sum's logarithm."""
    prob_V = np.empty_like(out_V)
    for v in range(len(out_V)):
        prob_V[v] = exp(out_V[v])
    offset = np.float32(log(total(prob_V)))
    for v in range(len(out_V)):
        out_V[v] -= offset


@compiled()
def _weigh_(mixer: Mixer, b: int, entropy: float, lambda_E: Doubles) -> None:
    """Write the experts' weights at one position; an expert that is absent has none."""
    if mixer.mode == GATED:
        gate = np.float64(sigmoid(np.float32(_SLOPE * (entropy - _CENTRE))))
        gate = _BASE + _SPAN * gate
        for e in range(NUM_EXPERTS):
            lambda_E[e] = gate * np.float64(mixer.weights_RI[0, e])
        lambda_E[0] = 1.0 - gate
        return
    lambda_E[:] = 0.0
    for row in mixer.picked_BP[b]:
        for e in range(NUM_EXPERTS):
            lambda_E[e] += np.float64(mixer.weights_RI[row, e]) / mixer.picked_BP.shape[1]


@compiled()
def add_linear_slopes_(mixer: Mixer, evidence: Evidence, b: int, token: int) -> None:
    """Add, for each picked row, its posterior over the experts; its last column counts lanes."""
    factor_E, slot = np.empty(NUM_EXPERTS, np.float64), evidence.slots_BV[b, token]
    last = evidence.inputs_BCI.shape[2] - 1
    factor_E[0] = 1.0
    for expert in (CHAIN, MATCH, RECENT):
        factor_E[1 + expert] = evidence.shares_B3[b, expert]
    factor_E[1 + RECENT] *= np.float64(exp(evidence.recent_BV[b, token]))
    if slot >= 0:
        factor_E[1 + CHAIN] *= np.float64(evidence.ratios_BC[b, slot])
        factor_E[1 + MATCH] *= np.float64(exp(evidence.inputs_BCI[b, slot, last - 1]))
    for row in mixer.picked_BP[b]:
        whole = 0.0
        for e in range(NUM_EXPERTS):
            whole += np.float64(mixer.weights_RI[row, e]) * factor_E[e]
        for e in range(NUM_EXPERTS):
            weight = np.float64(mixer.weights_RI[row, e])
            mixer.slopes_RI[row, e] += weight * factor_E[e] / whole
        mixer.slopes_RI[row, NUM_EXPERTS] += 1.0


@compiled()
def step_linear_(mixer: Mixer) -> None:
    """Move each row that was used towards the mean of its posteriors."""
    for r in range(len(mixer.weights_RI)):
        lanes = mixer.slopes_RI[r, NUM_EXPERTS]
        rate = mixer.rate * lanes / (1.0 + mixer.rate * lanes)
        for e in range(NUM_EXPERTS if lanes > 0.0 else 0):
            weight = np.float64(mixer.weights_RI[r, e])
            moved = weight + rate * (mixer.slopes_RI[r, e] / lanes - weight)
            mixer.weights_RI[r, e] = np.float32(max(moved, 1e-6) if weight > 0.0 else 0.0)
