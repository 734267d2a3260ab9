"""Token ids to the stream's start: table rows, bigram hashes, the smear of the previous embedding.

See model.embed for the law. Shapes: R rows, D model_dim, V rows of a table, E its width, N width of
a packed product, B lanes, C capacity.
"""

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import product, sigmoid

NO_TOKEN = -1
"""Stands where a position has no previous token."""

_ZERO = np.float32(0)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled()
def note_tokens_(
    last_token_B: Ints,
    documents_BC: Ints,
    tokens_R: Ints,
    lanes_R: Ints,
    positions_R: Ints,
    bos_id: int,
    document_mask: bool,
    previous_R: Ints,
) -> None:
    """Write each row's previous token and remember the rows' tokens and document numbers.

    Without a document mask all positions belong to one document.
    """
    for r in range(len(tokens_R)):
        token, lane, position = tokens_R[r], lanes_R[r], positions_R[r]
        previous_R[r] = NO_TOKEN if token == bos_id else last_token_B[lane]
        last_token_B[lane] = token
        number = documents_BC[lane, position - 1] if position > 0 else 0
        documents_BC[lane, position] = number + (1 if document_mask and token == bos_id else 0)


@compiled()
def look_up_(rows_R: Ints, table_VE: Floats, out_RE: Floats) -> None:
    """Write the table's rows."""
    for r in range(len(rows_R)):
        for i in range(table_VE.shape[1]):
            out_RE[r, i] = table_VE[rows_R[r], i]


@compiled()
def project_rows(rows_R: Ints, table_VE: Floats, proj: Floats) -> Floats:
    """Return table rows times a packed matrix, or nothing where there is no table."""
    if len(table_VE) == 0:
        return np.empty((len(rows_R), 0), np.float32)
    looked_RE = np.empty((len(rows_R), table_VE.shape[1]), np.float32)
    look_up_(rows_R, table_VE, looked_RE)
    return product(looked_RE, proj)


@compiled()
def bigram_buckets(tokens_R: Ints, previous_R: Ints, num_buckets: int) -> Ints:
    """Return the hash bucket of each pair; the last bucket where there is no previous token."""
    out_R = np.empty_like(tokens_R)
    for r in range(len(tokens_R)):
        mixed = ((tokens_R[r] * 36313) ^ (previous_R[r] * 27191)) % (num_buckets - 1)
        out_R[r] = num_buckets - 1 if previous_R[r] < 0 else mixed
    return out_R


@compiled()
def smear_row_(
    x_D: Floats,
    last_D: Floats,
    has_previous: bool,
    is_static: bool,
    gate_N: Floats,
    scale_1: Floats,
    previous_D: Floats,
    out_D: Floats,
) -> None:
    """Write a row with the previous embedding mixed in; keep the row itself for the next one.

    gate_N: static: a factor for each dim; gated: weights of the first dims. previous_D: gets the
    previous embedding, or zeros where there is none.
    """
    factor = _ZERO
    if not is_static:
        for i in range(len(gate_N)):
            factor += x_D[i] * gate_N[i]
        factor = sigmoid(factor) * scale_1[0]
    for i in range(len(x_D)):
        x, previous = x_D[i], last_D[i] if has_previous else _ZERO
        out_D[i] = previous + gate_N[i] * (x - previous) if is_static else x + factor * previous
        previous_D[i], last_D[i] = previous, x
