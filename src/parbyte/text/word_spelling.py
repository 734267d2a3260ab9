"""The shortest way to write an unknown word or separator with the pieces of a vocabulary."""

from collections.abc import Container

from parbyte.text.word_vocabulary import MAX_PIECE_BYTES


def shortest_spelling(
    run: bytes, starts: Container[bytes], tails: Container[bytes]
) -> tuple[list[bytes], int]:
    """Return the pieces of a run and their cost in ids; of equal ones, the last piece is longest.

    starts: pieces that may stand first; a tail in first place costs one id more, for the space
    before it. A byte that is no piece stands alone and costs two ids, its nibbles. O(31 len(run)).
    """
    costs = [0] * (len(run) + 1)
    starts_at = [0] * (len(run) + 1)
    for end in range(1, len(run) + 1):
        costs[end] = costs[end - 1] + 2 + (end == 1)
        starts_at[end] = end - 1
        for start in range(max(0, end - MAX_PIECE_BYTES), end):
            cost = costs[start] + 1
            if cost >= costs[end]:
                continue
            piece = run[start:end]
            if start == 0 and piece not in starts:
                cost += 1
            if cost < costs[end] and (piece in tails or (start == 0 and piece in starts)):
                costs[end], starts_at[end] = cost, start
    pieces: list[bytes] = []
    end = len(run)
    while end > 0:
        pieces.append(run[starts_at[end] : end])
        end = starts_at[end]
    return pieces[::-1], costs[-1]
