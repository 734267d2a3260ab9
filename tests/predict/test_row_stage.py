"""A row stage codes and decodes, and its two computations give the same bits."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from parbyte.base.log import Console
from parbyte.base.settings import to_table
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.conditions import coding_arithmetic
from parbyte.codec.config import CodecConfig
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import Decoder, Encoder
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.predict.build import build_predictor, build_row_stage
from parbyte.predict.expert_config import SETS, MixConfig, NgramConfig, SseConfig
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.predictor import Predictor
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer


def load_twins() -> ModuleType:
    if "twins" in sys.modules:
        return sys.modules["twins"]
    path = Path(__file__).parents[1] / "audit" / "twins.py"
    spec = importlib.util.spec_from_file_location("twins", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["twins"] = module
    spec.loader.exec_module(module)
    return module


twins = load_twins()
SMALL = 1 << 20


def mixed(*, memory: int = SMALL) -> Predictor:
    inner = PortablePredictor(twins.toy_model(), window=12, stride=5)
    return build_row_stage(MixConfig(memory=memory, sets=SETS), inner, twins.BOS)


def tokens(num_lanes: int, length: int, seed: int = 0) -> torch.Tensor:
    lanes = [twins.toy_text(seed + lane, length) for lane in range(num_lanes)]
    return torch.from_numpy(np.stack(lanes).astype(np.int64))


def walk(predictor: Predictor, tokens_BT: torch.Tensor, how: str) -> torch.Tensor:
    """Return the rows by chunks, by steps, or by chunks that were tried with other tokens first."""
    predictor.restore()
    parts, last_B = [], torch.full((len(tokens_BT),), twins.BOS)
    for chunk_BT in tokens_BT.split(predictor.chunk, dim=1):
        if how == "steps":
            for token_B in chunk_BT.T:
                parts.append(predictor.step(last_B)[:, None])
                last_B = token_B
        elif how == "chunks":
            parts.append(predictor.log_probs(chunk_BT))
        else:
            predictor.log_probs(chunk_BT.flip(0))
            parts.append(predictor.log_probs(chunk_BT))
            predictor.log_probs(chunk_BT[:, :2] * 0 + 3)
        predictor.observe(chunk_BT)
    predictor.restore()
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("how", ["steps", "after others"])
def test_every_computation_gives_the_same_bits(how: str) -> None:
    predictor, tokens_BT = mixed(), tokens(3, 137)
    assert torch.equal(walk(predictor, tokens_BT, "chunks"), walk(predictor, tokens_BT, how))


def test_steps_may_be_left_for_a_look_at_the_chunk() -> None:
    predictor, tokens_BT = mixed(), tokens(2, 60)
    rows = walk(predictor, tokens_BT, "chunks")
    last_B = torch.full((2,), twins.BOS)
    for t, token_B in enumerate(tokens_BT[:, :5].T):
        assert torch.equal(predictor.step(last_B), rows[:, t])
        assert torch.equal(predictor.log_probs(tokens_BT[:, :3]), rows[:, :3])
        last_B = token_B
    predictor.observe(tokens_BT[:, :5])
    assert torch.equal(predictor.log_probs(tokens_BT[:, 5:10]), rows[:, 5:10])


def test_a_text_is_coded_and_decoded() -> None:
    predictor = mixed()
    known = [twins.toy_text(seed, 83 - 20 * seed)[1:] for seed in range(3)]
    lengths, console = [len(lane) for lane in known], Console(quiet=True)
    encoder = Encoder(known)
    driven = drive(predictor, encoder, lengths, twins.BOS, console)
    payload = encoder.to_bytes()
    decoder = Decoder(payload, predictor.vocab_size)
    restored = drive(predictor, decoder, lengths, twins.BOS, console)
    for lane, back in zip(known, restored.tokens, strict=True):
        assert np.array_equal(lane, back)
    assert restored.nats == driven.nats


def test_the_posterior_is_a_mixture_whose_weights_stay() -> None:
    inner = PortablePredictor(twins.toy_model(), window=12, stride=5)
    predictor = build_row_stage(NgramConfig(memory=SMALL), inner, twins.BOS)
    tokens_BT = tokens(2, 60)
    rows = walk(predictor, tokens_BT, "chunks")
    torch.testing.assert_close(
        rows.double().exp().sum(-1), torch.ones(2, 60).double(), atol=1e-6, rtol=0
    )
    assert torch.equal(rows, walk(predictor, tokens_BT, "steps"))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    predictor, tokens_BT = mixed(), tokens(4, 60)
    with coding_arithmetic(1):
        rows = walk(predictor, tokens_BT, "chunks")
    with coding_arithmetic(threads):
        assert torch.equal(walk(predictor, tokens_BT, "chunks"), rows)


@pytest.mark.parametrize("prior", [b"", b"and the word was in the beginning. " * 4])
def test_an_artifact_with_a_stack_restores_its_text(tmp_path: Path, prior: bytes) -> None:
    model = GPT(ModelConfig(vocab_size=257, bos_id=256, model_dim=16, mlp_dim=24, rope_dims=4))
    stack = [to_table(MixConfig(memory=SMALL)), to_table(SseConfig())]
    predict = {"window": 16, "stride": 8, "engine": "portable", "stack": stack}
    blob = build_artifact(
        model.state_dict(),
        model.config,
        ByteTokenizer(),
        predict,
        QuantConfig(),
        PackConfig(fit=False),
        1_000_000,
        {},
        prior_N=np.frombuffer(prior, np.uint8).astype(np.uint16),
    )
    path, source = tmp_path / "model.parbyte", tmp_path / "text"
    path.write_bytes(blob)
    text = b"in the beginning was the word, and the word was with us. " * 8
    source.write_bytes(text)
    coded, console = tmp_path / "text.pby", Console(quiet=True)
    result = compress_file(path, source, coded, CodecConfig(lanes=2), console)
    assert result.bitstream_bytes < len(text) // 2
    artifact = load_artifact(path)
    assert len(artifact.prior_N) == len(prior)
    first_BV = build_predictor(artifact).step(torch.tensor([256, 256]))
    blank = replace(artifact, prior_N=artifact.prior_N[:0])
    is_changed = not torch.equal(first_BV, build_predictor(blank).step(torch.tensor([256, 256])))
    assert is_changed == bool(prior)
    decompress_file(path, coded, tmp_path / "restored", console)
    assert (tmp_path / "restored").read_bytes() == text
