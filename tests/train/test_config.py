import pytest

from parbyte.base.errors import RecipeError
from parbyte.base.settings import read_table
from parbyte.train.config import TrainConfig


def test_a_budget_may_be_seconds_or_steps_but_not_nothing() -> None:
    TrainConfig(seconds=0.0, steps=10)
    TrainConfig(seconds=1.0)
    with pytest.raises(RecipeError, match=r"train\.seconds"):
        TrainConfig(seconds=0.0, steps=0)


def test_a_batch_must_be_whole_windows() -> None:
    with pytest.raises(RecipeError, match=r"train\.batch_tokens.*multiple of train\.seq_len = 256"):
        TrainConfig(batch_tokens=2049, seq_len=256)
    with pytest.raises(RecipeError, match=r"train\.micro_batch_tokens"):
        TrainConfig(batch_tokens=2048, seq_len=256, micro_batch_tokens=100)


@pytest.mark.parametrize(
    ("micro_batch_tokens", "world_size", "rows"), [(0, 1, 8), (0, 2, 4), (512, 2, 2), (2048, 4, 2)]
)
def test_a_forward_gets_its_rows(micro_batch_tokens: int, world_size: int, rows: int) -> None:
    config = TrainConfig(batch_tokens=2048, seq_len=256, micro_batch_tokens=micro_batch_tokens)
    assert config.micro_rows(world_size) == rows


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused() -> None:
    with pytest.raises(RecipeError, match="3 ranks"):
        TrainConfig(batch_tokens=2048, seq_len=256).micro_rows(3)
    with pytest.raises(RecipeError, match=r"divisor of one rank's share of a batch, 1,024"):
        TrainConfig(batch_tokens=2048, seq_len=256, micro_batch_tokens=768).micro_rows(2)


def test_durations_may_be_written_with_their_unit() -> None:
    table = {"seconds": "3 min", "checkpoint_seconds": "20 s"}
    config = read_table(TrainConfig, table, where="r.toml", section="train")
    assert (config.seconds, config.checkpoint_seconds) == (180.0, 20.0)
