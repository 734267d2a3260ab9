"""A text falls into frames, and each frame is coded and decoded on its own.

One frame is all that is ever in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from parbyte.base.errors import BitstreamError, DataError
from parbyte.base.log import Console
from parbyte.codec.bitstream import Frame, digest_text
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import CHECK_TOKENS, Decoder, Encoder
from parbyte.predict.predictor import Predictor
from parbyte.text.lanes import MIN_LANE_TOKENS, Lanes, join_lanes, plan_lanes
from parbyte.text.tokenizer import Tokenizer

_NEWLINE_REACH = 1 << 16
"""A frame ends behind a newline if there is one in its last 64 KiB."""

_TOKENS_A_BYTE, _SPARE_TOKENS = 8, 1 << 20
"""A text of so many bytes has no more tokens; the spare ones are for documents without text."""


def encode_frame(
    predictor: Predictor,
    tokenizer: Tokenizer,
    documents: Sequence[bytes],
    num_lanes: int,
    console: Console,
    *,
    turns: int = 1,
) -> tuple[Frame, float]:
    """Code whole documents as one frame; return it and the ideal codelength of its tokens in nats.

    turns: see codec.drive.
    Raises DataError if the tokenizer cannot restore one of the documents.
    """
    ids = [tokenizer.encode(document) for document in documents]
    lanes = plan_lanes(ids, tokenizer.bos_id, num_lanes)
    encoder = Encoder(lanes.tokens, check_tokens=CHECK_TOKENS if turns > 1 else 0)
    driven = drive(predictor, encoder, lanes.lengths, tokenizer.bos_id, console, turns=turns)
    text = b"".join(documents)
    frame = Frame(
        len(text),
        digest_text(text),
        lanes.lengths,
        lanes.continues,
        encoder.to_bytes(),
        encoder.checks,
    )
    _require_plausible(frame)
    return frame, driven.nats


def decode_frame(
    predictor: Predictor, tokenizer: Tokenizer, frame: Frame, console: Console, *, turns: int = 1
) -> tuple[bytes, float]:
    """Return a frame's text, and the nats of its tokens as `encode_frame` does.

    Raises BitstreamError if the text is not the one that was coded.
    """
    _require_plausible(frame)
    checks = frame.checks if turns > 1 else None
    decoder = Decoder(frame.payload, tokenizer.vocab_size, checks=checks)
    driven = drive(predictor, decoder, frame.lengths, tokenizer.bos_id, console, turns=turns)
    stream = join_lanes(Lanes(driven.tokens, frame.continues), tokenizer.bos_id)
    text = tokenizer.decode(stream)
    if len(text) != frame.text_bytes or digest_text(text) != frame.text_digest:
        raise BitstreamError("decoding gave another text than the one that was compressed")
    return text, driven.nats


def document_frames(documents: Iterable[bytes], frame_bytes: int) -> Iterator[list[bytes]]:
    """Group whole documents into frames of at most `frame_bytes`; a longer one stands alone."""
    frame: list[bytes] = []
    size = 0
    for document in documents:
        if frame and size + len(document) > frame_bytes:
            yield frame
            frame, size = [], 0
        frame.append(document)
        size += len(document)
    if frame:
        yield frame


def file_frames(source: Path, frame_bytes: int) -> Iterator[list[bytes]]:
    """Cut a file into frames of at most `frame_bytes`, each one document, at newlines if near.

    Raises DataError when the file cannot be read.
    """
    try:
        with source.open("rb") as stream:
            rest = b""
            while block := rest + stream.read(frame_bytes - len(rest)):
                is_last = len(block) < frame_bytes
                end = len(block) if is_last else cut_point(block)
                yield [block[:end]]
                rest = block[end:]
    except OSError as error:
        raise DataError(f"cannot read '{source}': {error.strerror}") from None


def _require_plausible(frame: Frame) -> None:
    """Refuse what no text gives: it would only cost time and memory before it fails."""
    num_tokens, num_lanes = sum(frame.lengths), len(frame.lengths)
    if num_tokens > _TOKENS_A_BYTE * frame.text_bytes + _SPARE_TOKENS:
        raise BitstreamError("the bitstream claims more tokens than its text can have")
    if num_lanes > 1 and num_lanes > (num_tokens + num_lanes) // MIN_LANE_TOKENS:
        raise BitstreamError("the bitstream claims more lanes than its text can have")


def cut_point(block: bytes) -> int:
    """Return where a block is best cut: behind its last newline, if that is near its end."""
    newline = block.rfind(b"\n", max(1, len(block) - _NEWLINE_REACH))
    return newline + 1 or len(block)
