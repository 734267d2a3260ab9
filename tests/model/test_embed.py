"""Embedding features against loops in float64."""

import math

import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.embed import Embed, Smear, ValueEmbed, bigram_bucket
from parbyte.model.gpt import previous_tokens

BOS = 2


def randomize_(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def make_config(**values: object) -> ModelConfig:
    small = {"vocab_size": 9, "bos_id": BOS, "model_dim": 16, "num_heads": 4, "num_kv_heads": 2}
    return ModelConfig(**(small | {"rope_dims": 4} | values))  # type: ignore[arg-type]


def test_previous_tokens_stop_at_a_document_start_and_continue_across_calls() -> None:
    tokens = torch.tensor([[4, BOS, 5, 6]])
    assert previous_tokens(tokens, None, BOS).tolist() == [[-1, -1, BOS, 5]]
    assert previous_tokens(tokens, torch.tensor([[7]]), BOS).tolist() == [[7, -1, BOS, 5]]
    assert previous_tokens(tokens[:, :1], torch.tensor([[7]]), BOS).tolist() == [[7]]


@pytest.mark.parametrize("num_buckets", [2, 5, 3072])
def test_bigram_buckets_follow_the_hash_and_the_last_is_for_no_previous_token(
    num_buckets: int,
) -> None:
    tokens = torch.tensor([[0, 65535, 17, 3]])
    previous = torch.tensor([[-1, 65535, 4, 0]])
    expected = [num_buckets - 1] + [
        ((36313 * token) ^ (27191 * last)) % (num_buckets - 1)
        for token, last in [(65535, 65535), (17, 4), (3, 0)]
    ]
    assert bigram_bucket(tokens, previous, num_buckets).tolist() == [expected]


def test_bigram_rows_are_projected_scaled_and_added() -> None:
    embed = Embed(make_config(bigram_buckets=7, bigram_dim=3))
    randomize_(embed)
    assert embed.bigram is not None
    tokens = torch.tensor([[BOS, 5, 5, 8]])
    previous = previous_tokens(tokens, None, BOS)
    _, got = embed(tokens, previous, None, torch.float32)
    for t in range(4):
        last, token = int(previous[0, t]), int(tokens[0, t])
        row = 6 if last < 0 else ((36313 * token) ^ (27191 * last)) % 6
        projected = embed.bigram.proj.double() @ embed.bigram.table[row].double()
        expected = embed.table[token].double() + embed.bigram.scale.double() * projected
        torch.testing.assert_close(got[0, t].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["static", "gated"])
def test_smear_mixes_the_previous_embedding_in_unless_a_document_starts(form: str) -> None:
    smear = Smear(make_config(smear=form))
    randomize_(smear)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    has_previous = torch.tensor([[False, True, True, False, True], [False] + [True] * 4])
    got = smear(x, None, has_previous)
    gate = smear.gate.double()
    for b in range(2):
        for t in range(5):
            row = x[b, t].double()
            last = x[b, t - 1].double() if bool(has_previous[b, t]) else torch.zeros(16).double()
            if form == "static":
                share = torch.sigmoid(gate)
                expected = share * row + (1 - share) * last
            else:
                weight = 1 / (1 + math.exp(-(gate @ row[:12]).item()))
                expected = row + smear.scale.item() * weight * last
            torch.testing.assert_close(got[b, t].double(), expected, atol=2e-6, rtol=1e-5)


def test_smear_takes_up_where_the_last_call_ended() -> None:
    smear = Smear(make_config(smear="static"))
    randomize_(smear)
    x, all_previous = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    all_previous[:, 0] = False
    whole = smear(x, None, all_previous)
    first = smear(x[:, :1], None, all_previous[:, :1])
    second = smear(x[:, 1:2], x[:, :1], all_previous[:, 1:2])
    third = smear(x[:, 2:], x[:, 1:2], all_previous[:, 2:])
    torch.testing.assert_close(torch.cat([first, second, third], dim=1), whole)


def test_value_embeddings_are_projected_rows_in_heads() -> None:
    module = ValueEmbed(make_config(value_embed_dim=5, value_embed_layers=1))
    randomize_(module)
    got = module(torch.tensor([[3, 8]]), torch.float32)
    assert got.shape == (1, 2, 2, 4)
    expected = (module.proj.double() @ module.table[8].double()) * module.scale.double()
    torch.testing.assert_close(got[0, 1].flatten().double(), expected, atol=1e-5, rtol=1e-5)
