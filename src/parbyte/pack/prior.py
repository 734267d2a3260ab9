"""A piece of training text inside the artifact, for the stages that count.

What decodes has it before the first token, so that counts need not begin empty; its bytes are the
artifact's. The piece is the end of the training text, as long as its coded tokens fit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError
from parbyte.pack.streams import Stream, expand, shrink
from parbyte.text.shards import TokenStream

LARGEST_PRIOR = 2**24
"""Tokens."""
_TOKEN = np.dtype("<u2")
_LEAST_BITS = 2
"""Of a coded token: text that took less would be left out."""


def cut_prior(text: TokenStream, num_bytes: int, coders: Sequence[str]) -> NDArray[np.uint16]:
    """Return the longest end of a text that takes at most so many bytes, uint16[N].

    N is found to a 64th.
    """
    most = min(len(text), 8 * num_bytes // _LEAST_BITS, LARGEST_PRIOR)
    tail_N = text[len(text) - most :]
    fits, too_long = 0, most + 1
    while too_long - fits > 1 + fits // 64:
        count = (fits + too_long) // 2
        stream = shrink_prior(tail_N[most - count :], coders)
        fits, too_long = (count, too_long) if len(stream.payload) <= num_bytes else (fits, count)
    return tail_N[most - fits :]


def shrink_prior(tokens_N: NDArray[np.uint16], coders: Sequence[str]) -> Stream:
    """Code the tokens."""
    return shrink(tokens_N.astype(_TOKEN).tobytes(), coders, num_columns=2)


def expand_prior(stream: Stream, num_tokens: int, vocab_size: int) -> NDArray[np.uint16]:
    """Return the tokens, uint16[N]; ArtifactError unless all are of the vocabulary."""
    content = expand(stream, num_tokens * _TOKEN.itemsize, num_columns=2)
    tokens_N = np.frombuffer(content, _TOKEN).astype(np.uint16)
    if num_tokens and int(tokens_N.max()) >= vocab_size:
        raise ArtifactError("is damaged: its training text has tokens that its vocabulary has not")
    return tokens_N
