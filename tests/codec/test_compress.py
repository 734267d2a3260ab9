"""Text survives compression with a toy model; damaged or foreign files leave nothing behind."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError, BitstreamError, DataError
from parbyte.base.log import Console
from parbyte.codec import compress as compress_module
from parbyte.codec.bitstream import BitstreamReader, BitstreamWriter, Header
from parbyte.codec.compress import compress_documents, compress_file, decompress_file
from parbyte.codec.conditions import conditions
from parbyte.codec.config import CodecConfig
from parbyte.pack.artifact import Artifact
from parbyte.predict.build import build_predictor
from parbyte.score.measure import measure
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.lanes import plan_lanes

QUIET = Console(quiet=True)
CONFIG = CodecConfig(lanes=3, frame_bytes=1 << 20, threads=1)
TEXT = b"And God said, Let there be light:\nand there was light.\n"


def compress(artifact_path: Path, folder: Path, text: bytes, config: CodecConfig = CONFIG) -> Path:
    source, out = folder / "text", folder / "text.pby"
    source.write_bytes(text)
    compress_file(artifact_path, source, out, config, QUIET)
    return out


def rewrite_header(bitstream: Path, header: Header) -> None:
    with bitstream.open("rb") as stream:
        frames = list(BitstreamReader(stream).frames())
    with bitstream.open("wb") as stream:
        writer = BitstreamWriter(stream, header)
        for frame in frames:
            writer.write(frame)
        writer.close()


def header_of(bitstream: Path) -> Header:
    with bitstream.open("rb") as stream:
        return BitstreamReader(stream).header


@settings(max_examples=30)
@given(st.binary(max_size=200), st.integers(1, 4), st.integers(1, 250))
def test_any_text_survives(
    artifact_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    text: bytes,
    lanes: int,
    frame_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    config = CodecConfig(lanes=lanes, frame_bytes=frame_bytes, threads=1)
    bitstream = compress(artifact_path, folder, text, config)
    result = decompress_file(artifact_path, bitstream, folder / "back", QUIET)
    assert (folder / "back").read_bytes() == text
    assert (result.text_bytes, result.tokens) == (len(text), len(text))
    assert result.bitstream_bytes == bitstream.stat().st_size


def test_several_lanes_survive(artifact_path: Path, tmp_path: Path) -> None:
    text = TEXT * 60
    bitstream = compress(artifact_path, tmp_path, text)
    with bitstream.open("rb") as stream:
        (frame,) = BitstreamReader(stream).frames()
    assert len(frame.lengths) == 3
    decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert (tmp_path / "back").read_bytes() == text


def test_documents_decode_to_their_concatenation(
    artifact: Artifact, artifact_path: Path, tmp_path: Path
) -> None:
    documents = [b"", b"first document", b"\x00\xff second", b"", b"third" * 30]
    for frame_bytes in (1 << 20, 40):
        config = replace(CONFIG, frame_bytes=frame_bytes)
        out = tmp_path / "documents.pby"
        result = compress_documents(artifact, config, documents, out, QUIET)
        decoded = decompress_file(artifact_path, out, tmp_path / "back", QUIET)
        assert (tmp_path / "back").read_bytes() == b"".join(documents)
        assert (result.tokens, result.nats) == (decoded.tokens, decoded.nats)
        assert result.bpb == 8 * out.stat().st_size / len(b"".join(documents))


def test_no_documents_are_a_file_of_a_header(artifact: Artifact, tmp_path: Path) -> None:
    result = compress_documents(artifact, CONFIG, [], tmp_path / "none.pby", QUIET)
    assert (result.text_bytes, result.tokens) == (0, 0)
    assert result.bitstream_bytes <= 45


def test_coded_equals_measured_up_to_the_overhead(artifact: Artifact, tmp_path: Path) -> None:
    documents = [TEXT * count for count in (3, 40, 1, 17, 9)]
    tokenizer = ByteTokenizer()
    ids = [tokenizer.encode(document) for document in documents]
    lanes = plan_lanes(ids, tokenizer.bos_id, CONFIG.lanes)
    ledger = measure(build_predictor(artifact), lanes, tokenizer, QUIET)
    result = compress_documents(artifact, CONFIG, documents, tmp_path / "x.pby", QUIET)
    assert result.nats == pytest.approx(ledger.nats, rel=1e-6)
    assert result.tokens == ledger.num_tokens
    overhead_bytes = result.bitstream_bytes - ledger.nats / math.log(2) / 8
    assert 0 < overhead_bytes < 120


def test_every_damaged_byte_leaves_no_output(artifact_path: Path, tmp_path: Path) -> None:
    bitstream = compress(artifact_path, tmp_path, b"light")
    data = bitstream.read_bytes()
    for place in range(len(data)):
        for flip in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= flip
            bitstream.write_bytes(bytes(damaged))
            with pytest.raises(BitstreamError) as caught:
                decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
            assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "text.pby"]


def test_every_cut_and_any_addition_leaves_no_output(artifact_path: Path, tmp_path: Path) -> None:
    bitstream = compress(artifact_path, tmp_path, b"light")
    data = bitstream.read_bytes()
    for wrong in [*(data[:length] for length in range(len(data))), data + b"\x00", data + data]:
        bitstream.write_bytes(wrong)
        with pytest.raises(BitstreamError, match=r"text\.pby"):
            decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert not (tmp_path / "back").exists()


def test_another_model_is_named(
    artifact_path: Path, other_artifact_path: Path, tmp_path: Path
) -> None:
    bitstream = compress(artifact_path, tmp_path, TEXT)
    with pytest.raises(BitstreamError, match="another model"):
        decompress_file(other_artifact_path, bitstream, tmp_path / "back", QUIET)
    assert not (tmp_path / "back").exists()


def test_another_device_is_named(artifact_path: Path, tmp_path: Path) -> None:
    bitstream = compress(artifact_path, tmp_path, TEXT)
    rewrite_header(bitstream, replace(header_of(bitstream), device="cuda"))
    with pytest.raises(BitstreamError, match="device 'cuda'"):
        decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert not (tmp_path / "back").exists()


def test_another_machine_is_blamed_when_decoding_gives_another_text(
    artifact_path: Path, other_artifact_path: Path, tmp_path: Path
) -> None:
    bitstream = compress(artifact_path, tmp_path, TEXT)
    (tmp_path / "other").mkdir()
    other = header_of(compress(other_artifact_path, tmp_path / "other", TEXT))
    rewrite_header(bitstream, replace(other, machine=b"else"))
    with pytest.raises(BitstreamError, match="another processor"):
        decompress_file(other_artifact_path, bitstream, tmp_path / "back", QUIET)
    assert not (tmp_path / "back").exists()


def test_another_machine_alone_is_no_reason_to_refuse(artifact_path: Path, tmp_path: Path) -> None:
    bitstream = compress(artifact_path, tmp_path, TEXT)
    rewrite_header(bitstream, replace(header_of(bitstream), machine=b"else"))
    decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert (tmp_path / "back").read_bytes() == TEXT


def test_lanes_that_take_turns_come_back(artifact_path: Path, tmp_path: Path) -> None:
    text = TEXT * 60
    plain = compress(artifact_path, tmp_path, text)
    plain_bytes = plain.stat().st_size
    bitstream = compress(artifact_path, tmp_path, text, replace(CONFIG, turns=2))
    data = bitstream.read_bytes()
    assert data[:5] == b"PBYB\x04"
    assert 0 <= len(data) - plain_bytes <= 32
    decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert (tmp_path / "back").read_bytes() == text


def test_a_bitstream_of_a_gpu_is_refused_where_there_is_none(
    artifact: Artifact, artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_on_gpu = replace(conditions(artifact, 1), device="cuda", turns=2)
    monkeypatch.setattr(compress_module, "conditions", lambda *_: made_on_gpu)
    bitstream = compress(artifact_path, tmp_path, TEXT, replace(CONFIG, turns=2))
    monkeypatch.undo()
    with pytest.raises(BitstreamError, match="device 'cuda', decoding here would use 'cpu'"):
        decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)


def test_decoding_uses_the_threads_of_the_header(
    artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    decode_frame = compress_module.decode_frame

    def watched(*arguments: Any, **settings: Any) -> tuple[bytes, float]:
        seen.append(torch.get_num_threads())
        return decode_frame(*arguments, **settings)

    monkeypatch.setattr(compress_module, "decode_frame", watched)
    bitstream = compress(artifact_path, tmp_path, b"light", replace(CONFIG, threads=2))
    before = torch.get_num_threads()
    decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert seen == [2]
    assert torch.get_num_threads() == before


def test_a_compression_says_where_its_file_decodes(artifact: Artifact, tmp_path: Path) -> None:
    portable = replace(artifact, predict={**artifact.predict, "engine": "portable"})
    for threads, engine, where in (
        (1, artifact, f"on cpu with 1 thread, in practice this torch ({torch.__version__})"),
        (2, artifact, f"on cpu with 2 threads, in practice this torch ({torch.__version__})"),
        (2, portable, "anywhere"),
    ):
        config = replace(CONFIG, threads=threads, device="cpu")
        done = compress_documents(engine, config, [b"light"], tmp_path / "out", QUIET)
        assert done.decodes == where


def test_an_output_stays_when_its_replacement_fails(artifact_path: Path, tmp_path: Path) -> None:
    bitstream = compress(artifact_path, tmp_path, TEXT)
    bitstream.write_bytes(bitstream.read_bytes()[:-1])
    (tmp_path / "back").write_text("what was there")
    with pytest.raises(BitstreamError):
        decompress_file(artifact_path, bitstream, tmp_path / "back", QUIET)
    assert (tmp_path / "back").read_text() == "what was there"


def test_missing_files_are_named(artifact_path: Path, tmp_path: Path) -> None:
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    with pytest.raises(DataError, match="nowhere"):
        compress_file(artifact_path, nowhere, out, CONFIG, QUIET)
    with pytest.raises(DataError, match="nowhere"):
        decompress_file(artifact_path, nowhere, out, QUIET)
    with pytest.raises(ArtifactError, match="nowhere"):
        compress_file(nowhere, artifact_path, out, CONFIG, QUIET)
    assert not out.exists()


def test_a_source_is_never_its_own_output(artifact_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_bytes(TEXT)
    with pytest.raises(DataError, match="overwrite its own source"):
        compress_file(artifact_path, source, source, CONFIG, QUIET)
    assert source.read_bytes() == TEXT
