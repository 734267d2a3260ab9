"""Text to compressed file and back, given an artifact.

Files are written beside their final name and renamed only when all of it is written and, in
decoding, verified: an error leaves nothing behind.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from parbyte.base.clock import Stopwatch
from parbyte.base.errors import BitstreamError, DataError
from parbyte.base.files import atomic_file
from parbyte.base.log import Console
from parbyte.base.units import coded_bits_per_byte
from parbyte.codec.bitstream import BitstreamReader, BitstreamWriter
from parbyte.codec.conditions import (
    check_conditions,
    choose_turns,
    coding_arithmetic,
    conditions,
    decoding_place,
    decoding_threads,
    explain,
    place,
    place_for,
)
from parbyte.codec.config import CodecConfig
from parbyte.codec.frames import decode_frame, document_frames, encode_frame, file_frames
from parbyte.pack.artifact import Artifact, load_artifact
from parbyte.predict.build import build_predictor


@dataclass(frozen=True, kw_only=True)
class CodecResult:
    """What one pass over a text cost, in either direction."""

    bitstream_bytes: int
    text_bytes: int
    tokens: int
    seconds: float
    nats: float
    """Ideal codelength of the tokens under the coded rows; the rest of the file is overhead."""
    decodes: str = ""
    """Of a compression: where the file decodes (codec.conditions.decoding_place)."""

    @property
    def bpb(self) -> float:
        """Bits of the whole compressed file per byte of text."""
        return coded_bits_per_byte(self.bitstream_bytes, self.text_bytes)


def compress_documents(
    artifact: Artifact,
    config: CodecConfig,
    documents: Iterable[bytes],
    out: Path,
    console: Console,
) -> CodecResult:
    """Compress documents into one file; it decodes to their concatenation.

    Raises DataError if the tokenizer cannot restore a document, ResourceError if `out` cannot be
    written.
    """
    return _compress(artifact, config, document_frames(documents, config.frame_bytes), out, console)


def compress_file(
    artifact_path: Path, source: Path, out: Path, config: CodecConfig, console: Console
) -> CodecResult:
    """Compress a file of any size, frame by frame.

    Raises ArtifactError, DataError (source unreadable, or not to be restored by the tokenizer),
    ResourceError.
    """
    _check_paths(source, out)
    artifact = load_artifact(artifact_path)
    return _compress(artifact, config, file_frames(source, config.frame_bytes), out, console)


def decompress_file(artifact_path: Path, source: Path, out: Path, console: Console) -> CodecResult:
    """Restore what `compress_file` or `compress_documents` compressed with the same artifact.

    Raises BitstreamError, and writes nothing, if the file is damaged or needs another model,
    engine or device; ArtifactError, DataError, ResourceError.
    """
    _check_paths(source, out)
    artifact = load_artifact(artifact_path)
    try:
        with _open(source) as stream:
            return _decompress(artifact, BitstreamReader(stream), out, console)
    except BitstreamError as error:
        raise BitstreamError(f"'{source}': {error}") from None


def _compress(
    artifact: Artifact,
    config: CodecConfig,
    frames: Iterable[list[bytes]],
    out: Path,
    console: Console,
) -> CodecResult:
    place(artifact, config.device)
    predictor = build_predictor(artifact)
    turns = choose_turns(config, predictor, artifact)
    text_bytes, tokens, nats = 0, 0, 0.0
    watch = Stopwatch()
    header = conditions(artifact, config.threads, turns)
    with coding_arithmetic(config.threads), atomic_file(out) as sink:
        writer = BitstreamWriter(sink, header)
        for documents in frames:
            frame, frame_nats = encode_frame(
                predictor, artifact.tokenizer, documents, config.lanes, console, turns=turns
            )
            writer.write(frame)
            text_bytes += frame.text_bytes
            tokens += sum(frame.lengths)
            nats += frame_nats
        writer.close()
    return CodecResult(
        bitstream_bytes=writer.num_bytes,
        text_bytes=text_bytes,
        tokens=tokens,
        seconds=watch.elapsed_s(),
        nats=nats,
        decodes=decoding_place(header),
    )


def _decompress(
    artifact: Artifact, reader: BitstreamReader, out: Path, console: Console
) -> CodecResult:
    header = reader.header
    place_for(header, artifact)
    here = conditions(artifact, header.threads)
    check_conditions(header, here)
    predictor = build_predictor(artifact)
    text_bytes, tokens, nats = 0, 0, 0.0
    watch = Stopwatch()
    with coding_arithmetic(decoding_threads(header)), atomic_file(out) as sink:
        for frame in reader.frames():
            try:
                text, frame_nats = decode_frame(
                    predictor, artifact.tokenizer, frame, console, turns=header.turns
                )
            except BitstreamError as error:
                raise explain(error, header, here) from None
            sink.write(text)
            text_bytes += len(text)
            tokens += sum(frame.lengths)
            nats += frame_nats
    return CodecResult(
        bitstream_bytes=reader.num_bytes,
        text_bytes=text_bytes,
        tokens=tokens,
        seconds=watch.elapsed_s(),
        nats=nats,
    )


def _open(source: Path) -> IO[bytes]:
    try:
        return source.open("rb")
    except OSError as error:
        raise DataError(f"cannot read '{source}': {error.strerror}") from None


def _check_paths(source: Path, out: Path) -> None:
    if source.resolve() == out.resolve():
        raise DataError(f"'{out}' would overwrite its own source: choose another output")
