"""One hinted token is made likelier: p'(v) = p(v) exp(beta [v = h]) / Z (PR 1514's token hints).

Hint and beta depend on what was scored before, never on the token that follows, and
Z = 1 + p(h) (exp(beta) - 1) is exact whatever the hint is worth.
Shapes: B lanes, V vocab.
"""

import numpy as np

from parbyte.kernels.portable.counts import (
    COUNT,
    HEAD,
    KINDS,
    LAST,
    LEAF,
    TOKEN,
    older_follower,
)
from parbyte.kernels.portable.evidence import Evidence, Experts, Floats, find_path_
from parbyte.kernels.portable.geometric import Mixer
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, log

BETA, CONFIDENCE, MIN_COUNT = 0, 1, 2
"""Places of the settings in Mixer.tilt: a hint needs best / count and count."""


@compiled()
def tilt_row_(
    mixer: Mixer, experts: Experts, evidence: Evidence, b: int, below_V: Floats, out_V: Floats
) -> None:
    """Write one lane's row: the longest context with a sure follower gives the hint."""
    cells, path_K = experts.cells, evidence.path_BK[b]
    out_V[:] = below_V
    for order in range(find_path_(experts, 0, b, path_K), experts.lowest[0] - 1, -1):
        node = path_K[order]
        hint, count = experts.history[cells[node + LAST]], cells[node + COUNT]
        follower = np.int64(cells[node + HEAD])
        is_leaf = follower == LEAF
        best = 1 if is_leaf else 0
        for _ in range(0 if is_leaf else cells[node + KINDS]):
            seen, token = cells[follower + COUNT], cells[follower + TOKEN]
            if seen > best or (seen == best and token < hint):
                hint, best = token, seen
            follower = older_follower(cells, follower)
        is_sure = count >= mixer.tilt[MIN_COUNT] and best >= mixer.tilt[CONFIDENCE] * count
        if is_sure:
            beta = np.float32(mixer.tilt[BETA] * best / count)
            excess = np.float64(exp(below_V[hint])) * (np.float64(exp(beta)) - 1.0)
            offset = np.float32(log(1.0 + excess))
            for v in range(len(out_V)):
                out_V[v] -= offset
            out_V[hint] += beta
            return
