"""The portable network learns from a chunk after it was scored, in bits that no machine changes.

The battery of every predictor is in test_contract, the gradients are in kernels/test_backward.
Shapes: B lanes, T positions, V vocab.
"""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import ArtifactError, RecipeError
from parbyte.base.log import Console
from parbyte.base.settings import to_table
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.config import CodecConfig
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import Role, role_of
from parbyte.pack.artifact import build_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.predict.adapter_config import TTTConfig
from parbyte.predict.build import build_predictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.portable import PortablePredictor
from parbyte.predict.portable_ttt import PortableTTT
from parbyte.predict.predictor import Predictor
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

VOCAB, BOS, STRIDE = 97, 3, 4
PLAIN = ModelConfig(
    vocab_size=VOCAB, bos_id=BOS, model_dim=24, num_heads=3, num_kv_heads=3, mlp_dim=24,
    rope_dims=4, smear="static", logit_scale=4.0, logit_bias=True,
)  # fmt: skip
RICH = replace(
    PLAIN, num_layers=3, num_kv_heads=1, xsa_layers=1, softcap=10.0, smear="gated",
    bigram_buckets=11, bigram_dim=8, value_embed_dim=8, value_embed_layers=2, skips="gated",
    document_mask=True, tied=False,
)  # fmt: skip
LEARNING = TTTConfig(lr=0.02, embed_lr=0.03, scalar_lr=0.01)
QUIET = Console(quiet=True)
TEXT = b"".join(b"%d And God said, Let there be light.\n" % i for i in range(40))


def lively_model(config: ModelConfig) -> GPT:
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def random_tokens(num_lanes: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (num_lanes, length), generator=torch.Generator().manual_seed(0))


def learner(model: GPT, settings: TTTConfig = LEARNING) -> PortableTTT:
    return PortableTTT(model, settings, window=10, stride=STRIDE)


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


@pytest.mark.parametrize("config", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_of_zero_is_the_plain_network_bit_for_bit(
    config: ModelConfig, optimizer: str
) -> None:
    settings = TTTConfig(optimizer=optimizer, lr=0.0, embed_lr=0.0, scalar_lr=0.0)
    model, tokens_BT = lively_model(config), random_tokens(2, 27)
    plain = rows_by_chunks(PortablePredictor(model, window=10, stride=STRIDE), tokens_BT)
    assert torch.equal(rows_by_steps(learner(model, settings), tokens_BT), plain)


def test_a_chunk_is_scored_before_it_is_learned() -> None:
    model, tokens_BT = lively_model(RICH), random_tokens(2, 18)
    plain = rows_by_chunks(PortablePredictor(model, window=10, stride=STRIDE), tokens_BT)
    predictor = learner(model)
    rows = rows_by_chunks(predictor, tokens_BT)
    assert torch.equal(rows[:, :STRIDE], plain[:, :STRIDE])
    assert not torch.equal(rows[:, STRIDE], plain[:, STRIDE])
    for flipped in (STRIDE - 1, STRIDE, 2 * STRIDE - 1, 2 * STRIDE):
        other_BT = tokens_BT.clone()
        other_BT[1, flipped] = (other_BT[1, flipped] + 1) % VOCAB
        others = rows_by_chunks(predictor, other_BT)
        learned = (flipped // STRIDE + 1) * STRIDE
        assert torch.equal(others[:, : flipped + 1], rows[:, : flipped + 1])
        assert torch.equal(others[0, :learned], rows[0, :learned])
        assert not torch.equal(others[0, learned], rows[0, learned])


@pytest.mark.parametrize(("optimizer", "epochs"), [("adam", 1), ("adam", 3), ("sgd", 2)])
def test_a_step_is_that_of_torch(optimizer: str, epochs: int) -> None:
    settings = replace(LEARNING, optimizer=optimizer, epochs=epochs, clip=0.7, weight_decay=0.1)
    model, tokens_BT = lively_model(RICH), random_tokens(2, 2 * STRIDE)
    rows = rows_by_chunks(learner(model, settings), tokens_BT)

    twin = copy.deepcopy(model).requires_grad_()
    groups: dict[Role, list[Tensor]] = {}
    for name, parameter in twin.named_parameters():
        groups.setdefault(role_of(name), []).append(parameter)
    rates = {Role.EMBED: 0.03, Role.TABLE: 0.03, Role.SCALAR: 0.01}
    rule = torch.optim.AdamW if optimizer == "adam" else torch.optim.SGD
    options = {"eps": 1e-8} if optimizer == "adam" else {"momentum": 0.9}
    steps = rule(
        [
            {"params": group, "lr": rates.get(role, 0.02), "weight_decay": 0.0, **options}
            for role, group in groups.items()
        ]
    )
    inputs_BT = torch.cat([torch.full((2, 1), BOS), tokens_BT[:, : STRIDE - 1]], dim=1)
    for _ in range(epochs):
        steps.zero_grad()
        twin(inputs_BT, tokens_BT[:, :STRIDE]).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.7)
        with torch.no_grad():
            for group, role in zip(steps.param_groups, groups, strict=True):
                for parameter in group["params"] if role != Role.SCALAR else ():
                    parameter.mul_(1 - group["lr"] * 0.1)
        steps.step()
    twin.requires_grad_(False)
    law = NeuralPredictor(twin, window=10, stride=STRIDE)
    law.observe(tokens_BT[:, :STRIDE])
    expected = law.log_probs(tokens_BT[:, STRIDE:])
    torch.testing.assert_close(rows[:, STRIDE:], expected, atol=3e-3, rtol=0)
    assert not torch.allclose(rows[:, :STRIDE], expected, atol=0.1)


def test_steps_chunks_and_threads_follow_one_law_bit_for_bit() -> None:
    model, tokens_BT = lively_model(RICH), random_tokens(5, 19)
    predictor, before = learner(model, replace(LEARNING, epochs=2)), torch.get_num_threads()
    rows = rows_by_steps(predictor, tokens_BT)
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            assert torch.equal(rows_by_chunks(predictor, tokens_BT), rows)
            assert torch.equal(rows_by_steps(predictor, tokens_BT), rows)
    finally:
        torch.set_num_threads(before)


def test_restore_is_bit_exact_and_the_model_is_never_touched() -> None:
    model = lively_model(RICH)
    untouched = copy.deepcopy(model.state_dict())
    predictor, tokens_BT = learner(model), random_tokens(2, 19)
    first = rows_by_chunks(predictor, tokens_BT)
    predictor.step(tokens_BT[:, 0])
    assert torch.equal(rows_by_steps(predictor, tokens_BT), first)
    for name, value in model.state_dict().items():
        assert torch.equal(value, untouched[name])


def test_the_padding_of_an_ended_lane_teaches_nothing() -> None:
    model, tokens_BT = lively_model(PLAIN), random_tokens(2, 3 * STRIDE)
    tokens_BT[1] = BOS
    alone = rows_by_chunks(learner(model), tokens_BT[:1])
    assert torch.equal(rows_by_chunks(learner(model), tokens_BT)[:1], alone)
    predictor = learner(model)
    predictor.observe(tokens_BT[1:, :STRIDE])
    plain = PortablePredictor(model, window=10, stride=STRIDE)
    plain.observe(tokens_BT[1:, :STRIDE])
    assert torch.equal(predictor.log_probs(tokens_BT[1:, :2]), plain.log_probs(tokens_BT[1:, :2]))


@pytest.mark.parametrize("config", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("train", ["all", "last", "no_embed", "scalars"])
def test_what_learns_is_counted_and_the_rest_stays(
    train: str, optimizer: str, config: ModelConfig
) -> None:
    model = lively_model(config)
    predictor = learner(model, replace(LEARNING, train=train, optimizer=optimizer))
    last = {id(p) for p in model.blocks[-1].parameters()}
    learns = {
        name: {
            "all": True,
            "last": id(parameter) in last,
            "no_embed": role_of(name) not in (Role.EMBED, Role.TABLE),
            "scalars": role_of(name) == Role.SCALAR,
        }[train]
        for name, parameter in model.named_parameters()
    }
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert predictor.num_learning == sum(size for name, size in sizes.items() if learns[name])
    rows_by_chunks_without_restoring = random_tokens(2, 3 * STRIDE).split(STRIDE, dim=1)
    for chunk_BT in rows_by_chunks_without_restoring:
        predictor.observe(chunk_BT)
    learned = predictor.parameters()
    for name, parameter in model.named_parameters():
        assert torch.equal(learned[name], parameter) == (not learns[name]), name


def test_a_cosine_ends_at_its_horizon() -> None:
    model, tokens_BT = lively_model(PLAIN), random_tokens(1, 6 * STRIDE)
    predictor = learner(model, replace(LEARNING, schedule="cosine", horizon=3 * STRIDE))
    moved = []
    for chunk_BT in tokens_BT.split(STRIDE, dim=1):
        before = predictor.parameters()["embed.table"]
        predictor.observe(chunk_BT)
        moved.append(float((predictor.parameters()["embed.table"] - before).abs().max()))
    assert moved[0] == pytest.approx(0.03, rel=1e-3)
    assert moved[1] < moved[0]
    assert all(step > 0 for step in moved[:3])
    assert moved[3:] == [0.0, 0.0, 0.0]


def test_settings_that_cannot_work_are_refused() -> None:
    model = lively_model(PLAIN)
    with pytest.raises(ArtifactError, match=r"stack\[0\].optimizer.*muon.*engine = 'torch'"):
        learner(model, TTTConfig(optimizer="muon"))
    with pytest.raises(ArtifactError, match=r"stack\[0\].last_blocks' is 3.*2 blocks"):
        learner(model, TTTConfig(train="last", last_blocks=3))
    with pytest.raises(RecipeError, match="horizon"):
        TTTConfig(schedule="cosine")


def test_the_bits_are_those_of_every_earlier_version() -> None:
    model = lively_model(RICH)
    with torch.no_grad():
        for parameter in model.parameters():  # whole numbers: the same on every machine
            mixed = torch.arange(parameter.numel()) * 40503 % 65536 - 32768
            parameter.copy_((mixed.float() / 65536).view_as(parameter))
    settings = replace(LEARNING, epochs=2, clip=1.0, schedule="cosine", horizon=100)
    rows = rows_by_steps(learner(model, settings), torch.arange(40).view(2, 20) * 31 % VOCAB)
    assert hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16] == "c9caa506f8597ad8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that learns, a text, and the text packed by one thread."""
    folder = tmp_path_factory.mktemp("learning")
    config = replace(PLAIN, vocab_size=257, bos_id=256)
    settings = {"window": 16, "stride": 8, "engine": "portable", "stack": [to_table(LEARNING)]}
    parts = (
        ByteTokenizer(),
        settings,
        QuantConfig(),
        PackConfig(fit=False, coders=("range",)),
        1_000_000,
        {},
    )
    weights = dict(lively_model(config).state_dict())
    (folder / "model.parbyte").write_bytes(build_artifact(weights, config, *parts))
    (folder / "text").write_bytes(TEXT)
    coding = CodecConfig(lanes=2, threads=1)
    compress_file(folder / "model.parbyte", folder / "text", folder / "text.pby", coding, QUIET)
    return folder


def test_the_artifact_chooses_what_learns(folder: Path) -> None:
    artifact = load_artifact(folder / "model.parbyte")
    assert isinstance(build_predictor(artifact), PortableTTT)
    plain = replace(artifact, predict={**artifact.predict, "stack": []})
    assert isinstance(build_predictor(plain), PortablePredictor)


def test_a_file_comes_back_and_learning_made_it_smaller(folder: Path, tmp_path: Path) -> None:
    decompress_file(folder / "model.parbyte", folder / "text.pby", tmp_path / "back", QUIET)
    assert (tmp_path / "back").read_bytes() == TEXT
    assert (folder / "text.pby").stat().st_size < 0.8 * len(TEXT)
