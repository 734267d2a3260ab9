"""How a frame is coded: by the model, by zstd or not at all, whichever is smallest."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import zstandard

from parbyte.base.errors import BitstreamError, DataError
from parbyte.base.log import Console
from parbyte.codec.bitstream import BitstreamReader, BitstreamWriter, Header
from parbyte.codec.conditions import (
    check_conditions,
    choose_turns,
    coding_arithmetic,
    conditions,
    decoding_threads,
    explain,
    place,
    place_for,
)
from parbyte.codec.config import CodecConfig
from parbyte.codec.frames import decode_frame, encode_frame
from parbyte.codec.record import MODEL, STORED, ZSTD, Head
from parbyte.pack.artifact import Artifact
from parbyte.predict.build import build_predictor

_LEVEL, _WINDOW_LOG = 12, 23
_BLOCK_BYTES = 1 << 20
_INCOMPRESSIBLE = 0.97
"""Where zstd leaves so much, the data is compressed or random: the model would not help."""

_PROBED_BYTES, _SAMPLE_BYTES = 1 << 16, 1 << 12
_TOLERANCE = 1.25
"""A short sample starts cold: the model is tried unless it loses by more than this factor."""


class Methods:
    """Codes and decodes frames with one model, which is built when it is first needed."""

    def __init__(self, artifact: Artifact, console: Console, decoding_threads: int = 0) -> None:
        """decoding_threads: 0: as many as the bitstream permits."""
        self._artifact = artifact
        self._decoding_threads = decoding_threads
        self._console = console
        self._predictor = None
        self._checked: tuple[Header, Header] | None = None
        self.tokens, self.nats = 0, 0.0

    def encode(self, texts: Sequence[bytes], config: CodecConfig) -> tuple[int, bytes]:
        """Return the kind and the payload of a frame; a payload is never longer than the text."""
        text = b"".join(texts)
        packed = _zstd(text)
        kind, best = (ZSTD, packed) if len(packed) < len(text) else (STORED, text)
        place(self._artifact, config.device)
        with coding_arithmetic(config.threads):
            if not self._model_may_win(text, len(best)):
                return kind, best
            try:
                coded, tokens, nats = self._code(texts, config)
            except DataError:  # the tokenizer would not restore it
                return kind, best
        if len(coded) >= len(best):
            return kind, best
        self.tokens, self.nats = self.tokens + tokens, self.nats + nats
        return MODEL, coded

    def decode(self, head: Head, payload: bytes) -> bytes:
        """Return a frame's text. Raises BitstreamError."""
        if head.kind == STORED:
            text = payload
        elif head.kind == ZSTD:
            text = unzstd(payload, head.text_bytes)
        else:
            text = self._decode(payload, head.text_bytes)
        if len(text) != head.text_bytes:
            raise BitstreamError("a frame's text has another length than its head says")
        return text

    def check(self, head: Head, payload: bytes) -> None:
        """Raise BitstreamError if a frame was coded by another model or engine than is here."""
        if head.kind == MODEL:
            self._check(BitstreamReader(io.BytesIO(payload)).header)

    def _check(self, found: Header) -> Header:
        if self._checked is None or self._checked[0] != found:
            place_for(found, self._artifact)
            here = conditions(self._artifact, found.threads)
            check_conditions(found, here)
            self._checked = found, here
        return self._checked[1]

    def _decode(self, payload: bytes, text_bytes: int) -> bytes:
        reader = BitstreamReader(io.BytesIO(payload))
        here = self._check(reader.header)
        frames = list(reader.frames())
        if len(frames) != 1 or frames[0].text_bytes != text_bytes:
            raise BitstreamError("a frame's text has another length than its head says")
        with coding_arithmetic(self._decoding_threads or decoding_threads(reader.header)):
            try:
                text, nats = decode_frame(
                    self._built(),
                    self._artifact.tokenizer,
                    frames[0],
                    self._console,
                    turns=reader.header.turns,
                )
            except BitstreamError as error:
                raise explain(error, reader.header, here) from None
        self.tokens, self.nats = self.tokens + sum(frames[0].lengths), self.nats + nats
        return text

    def _code(self, texts: Sequence[bytes], config: CodecConfig) -> tuple[bytes, int, float]:
        predictor, tokenizer = self._built(), self._artifact.tokenizer
        turns = choose_turns(config, predictor, self._artifact)
        frame, nats = encode_frame(
            predictor, tokenizer, texts, config.lanes, self._console, turns=turns
        )
        stream = io.BytesIO()
        writer = BitstreamWriter(stream, conditions(self._artifact, config.threads, turns))
        writer.write(frame)
        writer.close()
        return stream.getvalue(), sum(frame.lengths), nats

    def _model_may_win(self, text: bytes, best_bytes: int) -> bool:
        """Estimate cheaply: from what zstd leaves, and from a sample of a long text."""
        if not text or (len(text) > _SAMPLE_BYTES and best_bytes > _INCOMPRESSIBLE * len(text)):
            return False
        if len(text) < _PROBED_BYTES:
            return True
        middle = len(text) // 2
        sample = text[middle : middle + _SAMPLE_BYTES]
        quiet = replace(self._console, quiet=True, live=False)
        try:
            _, nats = encode_frame(self._built(), self._artifact.tokenizer, [sample], 1, quiet)
        except DataError:  # perhaps only because the sample begins within a character
            return True
        return nats / math.log(2) / 8 / len(sample) < _TOLERANCE * best_bytes / len(text)

    def _built(self):
        if self._predictor is None:
            self._predictor = build_predictor(self._artifact)
        return self._predictor


def unzstd(data: bytes, largest: int) -> bytes:
    """Return what one zstd frame holds; BitstreamError if it is broken or holds more than that.

    Memory grows with what was decoded, not with what the frame declares.
    """
    blocks: list[bytes] = []
    size = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    try:
        with decompressor.stream_reader(data) as reader:
            while block := reader.read(_BLOCK_BYTES):
                size += len(block)
                if size > largest:
                    raise BitstreamError("a frame holds more than its head says")
                blocks.append(block)
    except zstandard.ZstdError:
        raise BitstreamError("a frame is damaged: it is no zstd data") from None
    return b"".join(blocks)


def _zstd(text: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=min(_WINDOW_LOG, max(10, len(text).bit_length())), write_content_size=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(text)
