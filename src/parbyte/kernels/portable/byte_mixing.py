"""The row below and a model of bytes multiplied, and tokens learned, position after position.

    log r(v) = w_p log p(v) + w_q log q(v) - log Z

p: the row below. q: the weights of kernels.portable.byte_trie over their sum, and p itself for the
tokens of no bytes. Each w is the sum of a row for all, one picked by the entropy of p and one by
the length of the longest known context. They learn as those of kernels.portable.geometric do: once
x is known, d log r(x) / d w = its input at x - E_r[input], over the root of the sum of squares.
A step takes the gradients of all lanes together.

Shapes: B lanes, T positions, V vocab, H history, K the highest order, R rows of weights.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parbyte.kernels.portable.byte_counts import learn_byte_, remember_
from parbyte.kernels.portable.byte_trie import Scratch, Trie, weigh_tokens_
from parbyte.kernels.portable.counts import NONE, Cells, Ints, clear_, has_room
from parbyte.kernels.portable.evidence import Doubles, Floats
from parbyte.kernels.portable.jit import compiled
from parbyte.kernels.portable.numerics import exp, largest, log, log32, total

ENTROPY_BINS = 12
_SMALLEST = np.float32(1e-12)
"""Least q whose logarithm is taken."""


class Speller(NamedTuple):
    """What is known of the vocabulary, of the text, and of how far to trust it.

    pieces, ends_V: the tokens' bytes joined, and where each ends. takes_V, asks_V: see
    Tokenizer.implied_spaces. recent_BK: each lane's last bytes, the newest first. last_B: each
    lane's last token. inputs_B2V: log p and log q of the last prediction; expected_B2: their means.
    """

    trie: Trie
    scratch: Scratch
    pieces: NDArray[np.uint8]
    ends_V: Ints
    takes_V: NDArray[np.bool_]
    asks_V: NDArray[np.bool_]
    cells: Cells
    undo: Ints
    history: NDArray[np.int32]
    length: Ints
    recent_BK: Ints
    last_B: Ints
    weights_R2: Doubles
    squares_R2: Doubles
    inputs_B2V: Floats
    expected_B2: Doubles
    picked_B3: Ints
    discount: float
    threshold: float
    rate: float
    bos_id: int


@compiled(is_entry=True)
def walk_bytes_(
    speller: Speller, tokens_BT: Ints, rows_BTV: Floats, out_BTV: Floats, start: int, stop: int
) -> None:
    """Mix the rows of some positions, and learn each position's tokens before the next.

    rows_BTV of no positions: learn only. tokens_BT of no positions: predict only.
    """
    for t in range(start, stop):
        if rows_BTV.shape[1] > 0:
            for b in range(len(rows_BTV)):
                say_(speller, b, rows_BTV[b, t], speller.inputs_B2V[b])
                _mix_(speller, b, out_BTV[b, t])
        if tokens_BT.shape[1] > 0:
            _step_(speller, tokens_BT[:, t])
            learn_tokens_(speller, tokens_BT[:, t])


@compiled(is_entry=True)
def say_(speller: Speller, b: int, row_V: Floats, inputs_2V: Floats) -> None:
    """Write log p and log q of one lane, and pick its rows of weights."""
    trie, below_V, bytes_V = speller.trie, inputs_2V[0], inputs_2V[1]
    prob_V, part_V = np.empty_like(row_V), np.empty_like(row_V)
    weight_V = np.zeros(len(row_V))
    for v in range(len(row_V)):
        below_V[v] = row_V[v]
        prob_V[v] = exp(row_V[v])
        part_V[v] = prob_V[v] * row_V[v]
    entropy = -total(part_V)
    longest = weigh_tokens_(
        trie,
        speller.scratch,
        speller.cells,
        speller.recent_BK[b],
        speller.asks_V[speller.last_B[b]],
        speller.discount,
        speller.threshold,
        weight_V,
    )
    whole, silent = 0.0, 0.0
    for v in trie.tokens_V:
        whole += weight_V[v]
    for v in trie.silent:
        silent += np.float64(prob_V[v])
    scale = max(1.0 - silent, np.float64(_SMALLEST)) / whole
    for v in range(len(row_V)):
        bytes_V[v] = log32(max(np.float32(weight_V[v] * scale), _SMALLEST))
    for v in trie.silent:
        bytes_V[v] = row_V[v]
    speller.picked_B3[b, 0] = 0
    speller.picked_B3[b, 1] = 1 + min(max(np.int64(entropy * 2.0), 0), ENTROPY_BINS - 1)
    speller.picked_B3[b, 2] = 2 + ENTROPY_BINS + longest


@compiled()
def _mix_(speller: Speller, b: int, out_V: Floats) -> None:
    """Write one lane's row, and note the expected inputs."""
    below_V, bytes_V = speller.inputs_B2V[b, 0], speller.inputs_B2V[b, 1]
    weights_2 = np.zeros(2)
    for row in speller.picked_B3[b]:
        weights_2[0] += speller.weights_R2[row, 0]
        weights_2[1] += speller.weights_R2[row, 1]
    w_below, w_bytes = np.float32(weights_2[0]), np.float32(weights_2[1])
    prob_V, part_V = np.empty_like(out_V), np.empty_like(out_V)
    for v in range(len(out_V)):
        out_V[v] = w_below * below_V[v] + w_bytes * bytes_V[v]
    top = largest(out_V)
    for v in range(len(out_V)):
        prob_V[v] = exp(out_V[v] - top)
    whole = total(prob_V)
    offset = np.float32(np.float64(top) + log(whole))
    for v in range(len(out_V)):
        out_V[v] -= offset
    for i in range(2):
        for v in range(len(out_V)):
            part_V[v] = prob_V[v] * speller.inputs_B2V[b, i, v]
        speller.expected_B2[b, i] = total(part_V) / whole


@compiled()
def is_padding(speller: Speller, b: int, token: int) -> bool:
    """Return whether a token is what an ended lane is fed: BOS after BOS."""
    return token == speller.bos_id and speller.last_B[b] == token


@compiled()
def _step_(speller: Speller, tokens_B: Ints) -> None:
    """Take one step of the weights, by the gradients of all lanes."""
    slopes_R2 = np.zeros(speller.weights_R2.shape)
    for b in range(len(tokens_B)):
        if is_padding(speller, b, tokens_B[b]):
            continue
        for i in range(2):
            slope = np.float64(speller.inputs_B2V[b, i, tokens_B[b]]) - speller.expected_B2[b, i]
            for row in speller.picked_B3[b]:
                slopes_R2[row, i] += slope
    for r in range(len(slopes_R2)):
        for i in range(2):
            speller.squares_R2[r, i] += slopes_R2[r, i] * slopes_R2[r, i]
            step = speller.rate * slopes_R2[r, i] / np.sqrt(speller.squares_R2[r, i])
            speller.weights_R2[r, i] += step


@compiled()
def learn_tokens_(speller: Speller, tokens_B: Ints) -> None:
    """Count the bytes of every lane's token, unless the table is nearly full; remember them."""
    recent_BK, length = speller.recent_BK, speller.length[0]
    for b in range(len(tokens_B)):
        token, last = tokens_B[b], speller.last_B[b]
        speller.history[length + b] = token
        if is_padding(speller, b, token):
            continue
        speller.last_B[b] = token
        if token == speller.bos_id:
            recent_BK[b, :] = NONE
            continue
        if speller.takes_V[token] and speller.asks_V[last]:
            _learn_(speller, b, ord(" "))
        for at in range(speller.ends_V[token - 1] if token > 0 else 0, speller.ends_V[token]):
            _learn_(speller, b, speller.pieces[at])
    speller.length[0] = length + len(tokens_B)


@compiled()
def _learn_(speller: Speller, b: int, byte: int) -> None:
    """Count one byte of a lane if there is room, and remember it."""
    recent_K, path_K = speller.recent_BK[b], speller.scratch.path_K
    if has_room(speller.cells, 1, 0.875):
        learn_byte_(speller.cells, speller.undo, recent_K, np.int64(byte), path_K)
    else:
        remember_(recent_K, np.int64(byte))


@compiled(is_entry=True)
def forget_bytes_(speller: Speller) -> None:
    """Forget the older half of the text: the table is made anew from the newer half.

    Repeated until that fills no more than half the table.
    """
    lanes, kept = len(speller.last_B), speller.length[0]
    while True:
        half = kept // lanes // 2 * lanes
        for at in range(half):
            speller.history[at] = speller.history[kept - half + at]
        kept, speller.length[0] = half, 0
        clear_(speller.cells)
        speller.recent_BK[:] = NONE
        speller.last_B[:] = speller.bos_id
        for place in range(0, kept, lanes):
            learn_tokens_(speller, speller.history[place : place + lanes].astype(np.int64))
            speller.undo[0, 0] = 0
        if kept == 0 or has_room(speller.cells, 0, 0.5):
            return
