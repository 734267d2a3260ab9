"""A contradiction in [model] is one line that names the key."""

import dataclasses
from typing import Any

import pytest

from parbyte.base.errors import RecipeError
from parbyte.base.settings import read_table
from parbyte.model.config import ModelConfig


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("model.num_heads", {"num_heads": 3}),
        ("model.num_kv_heads", {"num_kv_heads": 3}),
        ("model.rope_dims", {"rope_dims": 7}),
        ("model.rope_dims", {"rope_dims": 34}),
        ("model.xsa_layers", {"xsa_layers": 3}),
        ("model.value_embed_layers", {"value_embed_layers": 1}),
        ("model.value_embed_layers", {"value_embed_dim": 8}),
        ("model.bigram_buckets", {"bigram_buckets": 1}),
        ("model.bos_id", {"vocab_size": 10, "bos_id": 10}),
        ("model.loop", {"loop": [0, 1]}),
        ("model.loop", {"loop": [1, 0, 1]}),
        ("model.loop", {"loop": [0, 2, 1]}),
        ("model.loop", {"loop": [0, 1, 0]}),
        ("model.loop", {"loop": [0, 1, 99]}),
        ("model.xsa_layers", {"num_layers": 4, "loop": [1, 2, 1], "xsa_layers": 2}),
        (
            "model.value_embed_layers",
            {"loop": [0, 1, 1], "value_embed_dim": 4, "value_embed_layers": 1},
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(key: str, values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"'{key}' is ") as caught:
        read_table(ModelConfig, values, where="r.toml", section="model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["smear", "skips"])
def test_an_unknown_choice_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=f"'model.{key}' is 'gate'.*did you mean 'gated'"):
        read_table(ModelConfig, {key: "gate"}, where="r.toml", section="model")


def test_a_recipe_leaves_the_vocabulary_to_the_tokenizer() -> None:
    config = read_table(ModelConfig, {"num_layers": 3}, where="r.toml", section="model")
    assert config.vocab_size == 0
    full = dataclasses.replace(config, vocab_size=300, bos_id=256)
    assert (full.num_layers, full.vocab_size) == (3, 300)


@pytest.mark.parametrize(("skips", "pairs"), [("none", 0), ("plain", 4), ("gated", 4)])
def test_skips_pair_the_first_half_of_the_layers_with_the_second(skips: str, pairs: int) -> None:
    assert ModelConfig(num_layers=9, skips=skips).num_skips == pairs
