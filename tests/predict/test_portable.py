"""The portable engine follows the neural law and gives the same bits whatever computes it.

The battery of every predictor is in test_contract; here: the law against the torch engine, threads,
processors, and the codec.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import BitstreamError, RecipeError
from parbyte.base.log import Console
from parbyte.codec.bitstream import BitstreamReader, Header
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.config import CodecConfig
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.predict.build import build_predictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.predictor import Predictor
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

VOCAB, BOS = 97, 3
PLAIN = ModelConfig(
    vocab_size=VOCAB, bos_id=BOS, model_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=24, rope_dims=4
)
CONFIGS = {
    "plain": PLAIN,
    "the default recipe's options": replace(
        PLAIN, smear="static", logit_scale=4.0, logit_bias=True, model_dim=24, num_heads=3,
        num_kv_heads=3,
    ),
    "grouped heads": replace(PLAIN, num_heads=4, num_kv_heads=1, rope_dims=0, ln_scale=True),
    "plain skips": replace(PLAIN, num_layers=5, skips="plain", resid_mix=False),
    "gated skips": replace(PLAIN, num_layers=4, skips="gated", xsa_layers=2, mlp_slope=0.0),
    "bigrams": replace(PLAIN, bigram_buckets=11, bigram_dim=9, smear="gated"),
    "value embeddings": replace(
        PLAIN, value_embed_dim=5, value_embed_layers=1, num_heads=4, xsa_layers=1, softcap=7.0
    ),
    "loop": replace(
        PLAIN, num_layers=4, loop=(1, 2, 2), skips="gated", xsa_layers=1, value_embed_dim=5,
        value_embed_layers=3,
    ),
    "documents": replace(PLAIN, document_mask=True, tied=False, smear="static"),
}  # fmt: skip
TEXT = b"".join(
    b"%d And God said, Let there be light: and there was light.\n" % i for i in range(60)
)
QUIET = Console(quiet=True)


def lively_model(config: ModelConfig) -> GPT:
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def random_tokens(num_lanes: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (num_lanes, length), generator=torch.Generator().manual_seed(0))


def rows_by_chunks(predictor: Predictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    rows = []
    for chunk_BT in tokens_BT.split(predictor.chunk, dim=1):
        rows.append(predictor.log_probs(chunk_BT))
        predictor.observe(chunk_BT)
    return torch.cat(rows, dim=1)


def rows_by_steps(predictor: Predictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    rows, last_B = [], torch.full((len(tokens_BT),), BOS)
    for chunk_BT in tokens_BT.split(predictor.chunk, dim=1):
        for token_B in chunk_BT.T:
            rows.append(predictor.step(last_B))
            last_B = token_B
        predictor.observe(chunk_BT)
    return torch.stack(rows, dim=1)


@pytest.fixture
def with_threads() -> Callable[[int], None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads  # type: ignore[misc]
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (7, 3), (64, 64)])
def test_it_follows_the_law_of_the_torch_engine(name: str, window: int, stride: int) -> None:
    model, tokens_BT = lively_model(CONFIGS[name]), random_tokens(3, 29)
    tokens_BT[1, 10:13] = BOS
    expected = rows_by_chunks(NeuralPredictor(model, window=window, stride=stride), tokens_BT)
    predictor = PortablePredictor(model, window=window, stride=stride)
    rows = rows_by_steps(predictor, tokens_BT)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, expected, atol=5e-5, rtol=0)
    sums = rows.double().exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)
    assert torch.equal(rows_by_chunks(predictor, tokens_BT), rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_flipped_token_moves_no_row_up_to_its_own(name: str) -> None:
    predictor = PortablePredictor(lively_model(CONFIGS[name]), window=8, stride=4)
    tokens_BT = random_tokens(2, 19)
    for flipped in (0, 5, 11):
        other_BT = tokens_BT.clone()
        other_BT[:, flipped:] = (other_BT[:, flipped:] + 1) % VOCAB
        for rows_of in (rows_by_chunks, rows_by_steps):
            rows, others = rows_of(predictor, tokens_BT), rows_of(predictor, other_BT)
            assert torch.equal(rows[:, : flipped + 1], others[:, : flipped + 1])
            assert not torch.equal(rows[:, flipped + 1 :], others[:, flipped + 1 :])


def test_lanes_threads_and_neighbours_change_no_bit(with_threads: Callable[[int], None]) -> None:
    predictor = PortablePredictor(lively_model(PLAIN), window=8, stride=4)
    tokens_BT = random_tokens(37, 13)
    with_threads(1)
    rows = rows_by_steps(predictor, tokens_BT)
    assert torch.equal(rows_by_steps(predictor, tokens_BT[5:6])[0], rows[5])
    for threads in (2, 7):
        with_threads(threads)
        assert torch.equal(rows_by_steps(predictor, tokens_BT), rows)
        assert torch.equal(rows_by_chunks(predictor, tokens_BT), rows)


def test_restore_is_bit_exact_and_log_probs_changes_no_state() -> None:
    predictor = PortablePredictor(lively_model(CONFIGS["documents"]), window=8, stride=4)
    tokens_BT = random_tokens(2, 19)
    first = rows_by_steps(predictor, tokens_BT)
    predictor.step(tokens_BT[:, 0])
    predictor.restore()
    rows, last_B = [], torch.full((2,), BOS)
    for chunk_BT in tokens_BT.split(4, dim=1):
        for token_B in chunk_BT.T:
            predictor.log_probs(random_tokens(2, 3))
            rows.append(predictor.step(last_B))
            last_B = token_B
        predictor.observe(chunk_BT)
    assert torch.equal(torch.stack(rows, dim=1), first)


def test_steps_that_were_not_what_was_observed_are_forgotten() -> None:
    predictor = PortablePredictor(lively_model(PLAIN), window=8, stride=2)
    told_BT, observed_BT = random_tokens(2, 2), random_tokens(2, 4)[:, 2:]
    predictor.step(torch.full((2,), BOS))
    predictor.step(told_BT[:, 0])
    predictor.observe(observed_BT)
    row = predictor.step(observed_BT[:, -1])
    predictor.restore()
    predictor.observe(observed_BT)
    assert torch.equal(row, predictor.log_probs(told_BT)[:, 0])


def write_artifact(path: Path, engine: str) -> Path:
    config = ModelConfig(
        vocab_size=257, bos_id=256, model_dim=32, num_heads=2, num_kv_heads=2, mlp_dim=48,
        rope_dims=8, smear="static", logit_bias=True,
    )  # fmt: skip
    weights = dict(lively_model(config).state_dict())
    settings = {"window": 16, "stride": 8, "engine": engine}
    parts = (
        ByteTokenizer(),
        settings,
        QuantConfig(),
        PackConfig(fit=False, coders=("range",)),
        1_000_000,
        {},
    )
    path.write_bytes(build_artifact(weights, config, *parts))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portable artifact, its torch twin, a text, and the text packed by one thread."""
    folder = tmp_path_factory.mktemp("portable")
    write_artifact(folder / "model.parbyte", "portable")
    write_artifact(folder / "torch.parbyte", "torch")
    (folder / "text").write_bytes(TEXT)
    config = CodecConfig(lanes=9, threads=1)
    compress_file(folder / "model.parbyte", folder / "text", folder / "text.pby", config, QUIET)
    return folder


def header_of(bitstream: Path) -> Header:
    with bitstream.open("rb") as stream:
        return BitstreamReader(stream).header


def test_its_lanes_take_no_turns(folder: Path) -> None:
    config = CodecConfig(lanes=9, threads=1, turns=2)
    with pytest.raises(RecipeError, match=r"codec\.turns is 2"):
        compress_file(folder / "model.parbyte", folder / "text", folder / "x", config, QUIET)


def test_the_artifact_chooses_the_engine(folder: Path) -> None:
    predictor = build_predictor(load_artifact(folder / "model.parbyte"))
    assert isinstance(predictor, PortablePredictor)


def test_the_header_names_the_engine_and_nothing_of_the_machine(folder: Path) -> None:
    header = header_of(folder / "text.pby")
    assert (header.engine, header.device, header.threads) == ("portable", "cpu", 1)
    assert header.machine == bytes(4)


def test_any_number_of_threads_writes_the_same_file_and_reads_it(
    folder: Path, tmp_path: Path, with_threads: Callable[[int], None]
) -> None:
    model, text, packed = folder / "model.parbyte", folder / "text", folder / "text.pby"
    for threads in (2, 7):
        config = CodecConfig(lanes=9, threads=threads)
        compress_file(model, text, tmp_path / "again", config, QUIET)
        assert (tmp_path / "again").read_bytes() == packed.read_bytes()
        with_threads(threads)
        decompress_file(model, packed, tmp_path / "back", QUIET)
        assert (tmp_path / "back").read_bytes() == TEXT


def test_it_codes_as_densely_as_the_torch_engine(folder: Path, tmp_path: Path) -> None:
    config = CodecConfig(lanes=9, threads=1)
    results = [
        compress_file(folder / name, folder / "text", tmp_path / name, config, QUIET)
        for name in ("model.parbyte", "torch.parbyte")
    ]
    assert results[0].nats == pytest.approx(results[1].nats, rel=1e-5)
    assert results[0].bpb == pytest.approx(results[1].bpb, rel=5e-4)


def test_the_other_engine_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BitstreamError):
        decompress_file(folder / "torch.parbyte", folder / "text.pby", tmp_path / "back", QUIET)


def test_the_bits_are_those_of_every_earlier_version() -> None:
    model = lively_model(
        replace(
            PLAIN, num_layers=3, num_heads=4, xsa_layers=1, softcap=10.0, logit_bias=True,
            smear="gated", bigram_buckets=11, bigram_dim=8, value_embed_dim=8,
            value_embed_layers=2, skips="gated", document_mask=True, tied=False,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():  # whole numbers: the same on every machine
            mixed = torch.arange(parameter.numel()) * 40503 % 65536 - 32768
            parameter.copy_((mixed.float() / 65536).view_as(parameter))
    tokens_BT = torch.arange(40).view(2, 20) * 31 % VOCAB
    rows = rows_by_steps(PortablePredictor(model, window=8, stride=4), tokens_BT)
    assert hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16] == "fc5fa97ffa0dfdc3"
