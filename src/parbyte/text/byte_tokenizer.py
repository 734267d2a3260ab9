"""One id for each byte: ids 0..255 are the bytes, 256 is BOS."""

import numpy as np
from numpy.typing import NDArray

from parbyte.base.errors import ArtifactError
from parbyte.text.tokenizer import Ids, Tokenizer, check_ids, printable


class ByteTokenizer(Tokenizer):
    """The identity on bytes, with a BOS."""

    kind = "bytes"
    vocab_size = 257
    bos_id = 256
    is_lossless = True

    @classmethod
    def from_blob(cls, blob: bytes) -> "ByteTokenizer":
        """Check that the blob is empty: there is nothing to store."""
        if blob:
            raise ArtifactError(f"a byte tokenizer has no data, found {len(blob):,} bytes of it")
        return cls()

    def encode(self, text: bytes) -> Ids:
        """Return the byte values as ids."""
        return np.frombuffer(text, dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Return the bytes of all ids but BOS."""
        flat = check_ids(ids, self.vocab_size)
        return flat[flat != self.bos_id].astype(np.uint8).tobytes()

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return 1 for each byte, 0 for BOS."""
        return (check_ids(ids, self.vocab_size) != self.bos_id).astype(np.int64)

    def token_text(self, token: int) -> str:
        """Return the byte as text, or its escape."""
        return "<bos>" if token == self.bos_id else printable(bytes([token]))

    def to_blob(self) -> bytes:
        """Return nothing: the kind says it all."""
        return b""
