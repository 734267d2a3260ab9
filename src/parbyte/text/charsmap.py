"""Check a SentencePiece normaliser's compiled table before the library walks it unchecked.

The table is: size of a trie in bytes (4 bytes), the trie, replacement strings that end in NUL.
The trie is a double array of 32-bit units: a node's children lie at index ^ offset ^ byte, and the
position of its replacement string, if it has one, is the value of the unit at index ^ offset.
Source: darts-clone (double-array unit layout) and normalizer.cc of google/sentencepiece.
"""

import numpy as np

from parbyte.base.errors import ArtifactError

_HAS_STRING = 1 << 8
_WIDE_OFFSET = 1 << 9
_IS_VALUE = 1 << 31
_VALUE = _IS_VALUE - 1


def check_charsmap(charsmap: bytes) -> None:
    """Raise ArtifactError unless every step through the table stays inside it."""
    if not charsmap:
        return
    num_trie_bytes = int.from_bytes(charsmap[:4], "little")
    strings = charsmap[4 + num_trie_bytes :]
    is_whole = num_trie_bytes % 1024 == 0 and 0 < num_trie_bytes <= len(charsmap) - 4
    if not is_whole or not strings.endswith(b"\0"):
        raise ArtifactError("the SentencePiece model's normaliser table is damaged")
    units = np.frombuffer(charsmap, dtype="<u4", count=num_trie_bytes // 4, offset=4)
    units = units.astype(np.int64)
    offsets = (units >> 10) << np.where(units & _WIDE_OFFSET, 8, 0)
    children = np.arange(len(units)) ^ offsets
    is_node = (units & _IS_VALUE) == 0
    if np.any((children | 255)[is_node] >= len(units)):
        raise ArtifactError("the SentencePiece model's normaliser table points outside itself")
    named = children[is_node & (units & _HAS_STRING != 0)]
    if np.any((units[named] & _VALUE) >= len(strings)):
        raise ArtifactError("the SentencePiece model's normaliser table points outside itself")
