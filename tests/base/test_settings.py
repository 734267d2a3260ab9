"""Recipes are read strictly: unknown keys, wrong types and values out of range are refused."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import ParbyteError, RecipeError
from parbyte.base.settings import read_table, require, setting, to_table


@dataclass(frozen=True, kw_only=True)
class Example:
    seconds: float = setting(180.0, low=0.0, unit="seconds", doc="Training time.")
    cap_bytes: int = setting(400_000, low=1, unit="bytes", doc="Size of the artifact.")
    num_layers: int = setting(2, low=1, high=64, doc="Number of blocks.")
    dtype: str = setting("float32", choices=["float32", "bfloat16"], doc="Compute dtype.")
    tied: bool = setting(True, doc="Share the token table.")
    coders: tuple[str, ...] = setting(("zstd",), choices=["zstd", "lzma"], doc="Coders.")
    rates: dict[str, float] = setting({}, low=0.0, doc="Rate by role.")  # noqa: RUF009
    gain: float = setting(1.0, doc="Any number.")
    limit: int | None = setting(None, low=1, doc="At most so many.")


@dataclass(frozen=True, kw_only=True)
class Demanding:
    corpus: str = setting(doc="The text to learn.")
    window: int = setting(256, low=2, doc="Positions.")
    stride: int = setting(128, low=1, doc="Positions.")

    def __post_init__(self) -> None:
        require(self.stride < self.window, "stride", got=self.stride, want="below window")


def read(table: dict[str, Any], cls: type = Example) -> Any:
    return read_table(cls, table, where="a.toml", section="train")


def refusal(table: dict[str, Any], cls: type = Example) -> str:
    with pytest.raises(RecipeError) as caught:
        read(table, cls)
    text = str(caught.value)
    assert "\n" not in text, "a refusal is one line"
    return text


def test_an_empty_table_gives_the_defaults() -> None:
    assert read({}) == Example()


def test_an_unknown_key_names_file_key_and_the_nearest_key() -> None:
    text = refusal({"num_layer": 3})
    assert "a.toml" in text and "'train.num_layer'" in text and "did you mean 'num_layers'" in text


def test_an_unknown_key_that_resembles_nothing_lists_the_known_keys() -> None:
    text = refusal({"zzz": 3})
    assert all(field.name in text for field in dataclasses.fields(Example))


def test_a_missing_key_is_named_with_its_meaning() -> None:
    text = refusal({}, Demanding)
    assert "'train.corpus' is missing" in text and "The text to learn." in text


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("num_layers", 0, "1..64"),
        ("num_layers", 65, "1..64"),
        ("num_layers", 2.5, "a whole number"),
        ("num_layers", "2", "a whole number"),
        ("num_layers", True, "a whole number"),
        ("num_layers", math.inf, "a whole number"),
        ("num_layers", math.nan, "a whole number"),
        ("seconds", math.nan, "duration"),
        ("seconds", -1.0, "at least 0"),
        ("seconds", "soon", "duration"),
        ("cap_bytes", "big", "size"),
        ("cap_bytes", 0, "at least 1"),
        ("cap_bytes", math.inf, "size"),
        ("dtype", "float16", "one of float32, bfloat16"),
        ("dtype", 16, "a string"),
        ("tied", 1, "true or false"),
        ("tied", "yes", "true or false"),
        ("coders", "zstd", "a list"),
        ("coders", ["gzip"], "one of zstd, lzma"),
        ("rates", {"attn": "high"}, "a number"),
        ("rates", 3, "a table"),
        ("rates", {"attn": -1.0}, "at least 0"),
        ("limit", 0, "at least 1"),
        ("gain", math.nan, "a number"),
    ],
)
def test_a_bad_value_names_file_key_value_and_what_is_allowed(
    key: str, value: Any, wanted: str
) -> None:
    text = refusal({key: value})
    assert text.startswith("a.toml: ") and f"train.{key}" in text
    assert wanted in text, f"{text!r} does not say what is wanted"


def test_a_misspelt_choice_names_the_nearest_choice() -> None:
    assert "did you mean 'bfloat16'" in refusal({"dtype": "bfloat"})


def test_sizes_and_durations_may_carry_units() -> None:
    config = read({"seconds": "3 min", "cap_bytes": "400 KB"})
    assert (config.seconds, config.cap_bytes) == (180.0, 400_000)


def test_a_whole_float_is_accepted_for_a_whole_number() -> None:
    value = read({"num_layers": 4.0}).num_layers
    assert value == 4 and type(value) is int


def test_a_rule_over_several_keys_names_file_and_section() -> None:
    text = refusal({"corpus": "kjv", "window": 64, "stride": 64}, Demanding)
    assert "a.toml" in text and "[train]" in text and "'stride' is 64" in text


def test_two_configurations_never_share_a_default_table() -> None:
    first, second = Example(), Example()
    first.rates["attn"] = 1.0
    assert second.rates == {} and Example().rates == {}


def test_every_refusal_is_the_users_error() -> None:
    assert issubclass(RecipeError, ParbyteError) and RecipeError.exit_code == 2


configurations = st.builds(
    Example,
    seconds=st.floats(0, 1e6),
    cap_bytes=st.integers(1, 10**12),
    num_layers=st.integers(1, 64),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    tied=st.booleans(),
    coders=st.lists(st.sampled_from(["zstd", "lzma"])).map(tuple),
    rates=st.dictionaries(st.text(min_size=1), st.floats(0, 10)),
    limit=st.none() | st.integers(1, 10**9),
    gain=st.floats(allow_nan=False),
)


@given(configurations)
def test_a_configuration_written_as_a_table_reads_back_equal(config: Example) -> None:
    assert read(to_table(config)) == config


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.sampled_from([field.name for field in dataclasses.fields(Example)]) | st.text()


@given(st.dictionaries(keys, scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars)))
def test_any_table_is_read_or_refused_in_one_line(table: dict[str, Any]) -> None:
    try:
        assert isinstance(read(table), Example)
    except RecipeError as error:
        assert str(error).startswith("a.toml: ")


@dataclass(frozen=True, kw_only=True)
class Step:
    kind: str = setting("step", choices=("step",), doc="The kind.")
    rate: float = setting(0.5, low=0.0, doc="A number.")


@dataclass(frozen=True, kw_only=True)
class Jump:
    kind: str = setting("jump", choices=("jump",), doc="The kind.")
    inner: tuple[Any, ...] = setting((), kinds={"step": Step}, doc="Steps inside.")


@dataclass(frozen=True, kw_only=True)
class Walk:
    stack: tuple[Any, ...] = setting((), kinds={"step": Step, "jump": Jump}, doc="What follows.")


def test_a_list_of_kinds_is_read_and_written_back() -> None:
    table = {"stack": [{"kind": "jump", "inner": [{"kind": "step"}]}, {"kind": "step", "rate": 2}]}
    walk = read(table, Walk)
    assert walk == Walk(stack=(Jump(inner=(Step(),)), Step(rate=2.0)))
    assert read(to_table(walk), Walk) == walk


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"stack": {"kind": "step"}}, "must be a list of tables"),
        ({"stack": [{"rate": 1.0}]}, "'train.stack[0]' must be a table with kind = one of step"),
        ({"stack": [{"kind": "stop"}]}, "did you mean 'step'"),
        ({"stack": [3]}, "'train.stack[0]'"),
        ({"stack": [{"kind": "step", "rat": 1}]}, "'train.stack[0].rat'; did you mean 'rate'"),
        ({"stack": [{"kind": "jump", "inner": [{"kind": "jump"}]}]}, "'train.stack[0].inner[0]'"),
    ],
)
def test_a_bad_kind_or_key_in_a_list_is_named(table: dict[str, Any], said: str) -> None:
    assert said in refusal(table, Walk)
