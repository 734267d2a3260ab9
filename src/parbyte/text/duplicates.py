"""Is the held-out text new? Counts held-out documents that also stand in the training text.

Eight bytes are kept for each document, so that a corpus of millions fits in memory.
"""

import hashlib
from array import array

import numpy as np

from parbyte.base.errors import DataError

# Short documents (a heading, a list item) may repeat; more than this is the same text twice.
_MAX_SHARE = 0.5


class DuplicateCount:
    """Hashes of the documents of both sides, compared once at the end."""

    def __init__(self) -> None:
        self._seen = array("Q")
        self._heldout = array("Q")
        self._heldout_bytes = array("Q")

    def add(self, split: str, document: bytes, num_bytes: int) -> None:
        """Remember one document of `split`: its text or its ids, and its bytes of text."""
        digest = hashlib.blake2b(document, digest_size=8).digest()
        if split == "heldout":
            self._heldout.append(int.from_bytes(digest, "little"))
            self._heldout_bytes.append(num_bytes)
        else:
            self._seen.append(int.from_bytes(digest, "little"))

    def count(self) -> tuple[int, int]:
        """Return how many held-out documents were seen elsewhere, and their bytes.

        Raises DataError if they make up more than half of the held-out bytes.
        """
        lengths = np.frombuffer(self._heldout_bytes, np.uint64).astype(np.int64)
        hashes = np.frombuffer(self._heldout, np.uint64)
        repeats = np.isin(hashes, np.frombuffer(self._seen, np.uint64))
        num_bytes = int(lengths[repeats].sum())
        if num_bytes > _MAX_SHARE * int(lengths.sum()):
            raise DataError(
                f"{100 * num_bytes / int(lengths.sum()):.1f} % of the held-out bytes also stand "
                f"in the training text ({int(repeats.sum()):,} of {len(repeats):,} documents), so "
                f"a score on them would mean nothing; hold out other text"
            )
        return int(repeats.sum()), num_bytes
