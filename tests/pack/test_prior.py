"""Training text inside an artifact: it fits its bytes, comes back, and is paid for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parbyte.base.errors import ArtifactError
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.pack.artifact import build_artifact, inspect_artifact, load_artifact
from parbyte.pack.config import PackConfig
from parbyte.pack.prior import cut_prior, expand_prior, shrink_prior
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.shards import TokenStream

CODERS = ("range", "zstd", "brotli")
SHAPE = ModelConfig(vocab_size=257, bos_id=256, model_dim=16, mlp_dim=24, rope_dims=4)


def words(count: int) -> np.ndarray:
    return np.random.default_rng(0).zipf(1.5, count).clip(0, 256).astype(np.uint16)


@pytest.mark.parametrize("num_bytes", [0, 1, 300, 5_000])
def test_a_prior_is_the_longest_end_that_fits(num_bytes: int) -> None:
    text_N = words(30_000)
    stream = TokenStream([text_N[:9_000], text_N[9_000:]])
    prior_N = cut_prior(stream, num_bytes, CODERS)
    count = len(prior_N)
    assert np.array_equal(prior_N, text_N[len(text_N) - count :])
    assert len(shrink_prior(prior_N, CODERS).payload) <= num_bytes
    longer_N = text_N[len(text_N) - count - count // 32 - 2 :]
    assert len(shrink_prior(longer_N, CODERS).payload) > num_bytes


def test_of_a_text_that_fits_next_to_all_is_kept() -> None:
    assert len(cut_prior(TokenStream([words(640)]), 10_000, CODERS)) >= 630


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 65_535), max_size=200))
def test_a_prior_comes_back(tokens: list[int]) -> None:
    prior_N = np.array(tokens, np.uint16)
    restored_N = expand_prior(shrink_prior(prior_N, CODERS), len(tokens), 65_536)
    assert np.array_equal(restored_N, prior_N)


def test_tokens_beyond_the_vocabulary_are_refused() -> None:
    stream = shrink_prior(np.array([1, 300], np.uint16), CODERS)
    with pytest.raises(ArtifactError, match="vocabulary"):
        expand_prior(stream, 2, 300)


def test_an_artifact_holds_its_prior_and_counts_its_bytes(tmp_path: Path) -> None:
    sizes, prior_N, weights = [], words(2_000), GPT(SHAPE).state_dict()
    for name, stored_N in (("with", prior_N), ("without", None)):
        path, settings = tmp_path / name, (QuantConfig(), PackConfig(coders=CODERS), 10**6, {})
        path.write_bytes(
            build_artifact(weights, SHAPE, ByteTokenizer(), {}, *settings, prior_N=stored_N)
        )
        restored_N = load_artifact(path).prior_N
        assert np.array_equal(restored_N, prior_N[: len(prior_N) if name == "with" else 0])
        contents = inspect_artifact(path)
        assert sum(contents["parts"].values()) == contents["bytes"]
        sizes.append((contents["bytes"], contents["parts"]["prior"]))
    assert sizes[0][1] == len(shrink_prior(prior_N, CODERS).payload)
    assert sizes[1][1] == 0
    assert sizes[0][0] >= sizes[1][0] + sizes[0][1]
