"""The window geometry: what is read and scored, and how often."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.claims.claimed import ClaimedRate
from parbyte.claims.windows import Windows, sliding


def positions(windows: Windows, num_tokens: int) -> list[int]:
    stream_N = torch.arange(num_tokens)
    return [p for batch in windows.batches(stream_N) for p in batch.positions_M.tolist()]


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 8, 9, 10, 16, 17, 30, 41])
@pytest.mark.parametrize(("window", "stride"), [(8, 2), (8, 3), (8, 8), (5, 1)])
def test_without_the_error_each_token_is_scored_once(
    num_tokens: int, window: int, stride: int
) -> None:
    windows = Windows(window=window, stride=stride, batch=3, repeats_tail=False)
    assert positions(windows, num_tokens) == list(range(1, num_tokens))


def test_the_scripts_score_the_last_stride_again_in_each_short_window() -> None:
    windows = Windows(window=8, stride=2, batch=3)
    found = positions(windows, 31)
    times = np.bincount(found, minlength=31)
    assert times.tolist() == [0, *[1] * 28, 4, 4]  # 8 / 2 windows hold the last two


def test_the_contest_text_is_scored_1984_tokens_too_often() -> None:
    windows, num_tokens = Windows(), 62_021_632 + 1
    starts = windows.starts(num_tokens)
    assert len(starts) == 969_088
    short = [start for start in starts[-40:] if start + windows.window > num_tokens - 1]
    assert len(short) * windows.stride == 1984


def test_a_window_prices_the_tokens_behind_its_inputs() -> None:
    stream_N = torch.arange(100, 130)
    for batch in Windows(window=8, stride=3, batch=4).batches(stream_N):
        assert torch.equal(stream_N[batch.positions_M], batch.answers_M)
        read = batch.inputs_BL > 0
        assert torch.equal(read.sum(1), batch.lengths_B)
        assert torch.equal(batch.inputs_BL[:, 0], stream_N[batch.starts_B])


def test_ranks_cut_the_windows_into_spans() -> None:
    stream_N = torch.arange(60)
    whole = Windows(window=8, stride=2, batch=4)
    spans = Windows(window=8, stride=2, batch=4, ranks=3)
    assert positions(spans, 60) == positions(whole, 60)
    assert {batch.rank for batch in spans.batches(stream_N)} == {0, 1, 2}


def test_sliding_equals_each_window_by_itself(net: torch.nn.Module, stream: Tensor) -> None:
    found = sliding(net, stream, Windows(window=16, stride=4, batch=5))
    expected: list[float] = []
    for start in range(0, len(stream) - 1, 4):
        stop = min(start + 16, len(stream) - 1)
        rows = net.logits(net.hidden(stream[None, start:stop]))[0].detach().softmax(-1)
        first = 0 if start == 0 else max(stop - start - 4, 0)
        answers = stream[start + first + 1 : stop + 1]
        expected += [-math.log(row[v]) for row, v in zip(rows[first:], answers, strict=True)]
    assert found.nats_M.tolist() == pytest.approx(expected, abs=1e-12)
    row = net.logits(net.hidden(stream[None, :1]))[0, 0].detach().softmax(-1).tolist()
    entropy = -sum(p * math.log(p) for p in row)
    assert float(found.entropy_M[0]) == pytest.approx(entropy, abs=1e-12)


def test_a_claimed_rate_never_leaves_its_word(net: torch.nn.Module, stream: Tensor) -> None:
    claimed = sliding(net, stream, Windows(window=16, stride=4, batch=5))
    rate = claimed.rate(np.full(len(stream), 2))
    expected = float(claimed.nats_M.sum()) / np.log(2.0) / (2 * len(claimed.nats_M))
    assert rate.value == pytest.approx(expected)
    for text in (f"{rate}", f"{rate:.2f}", str(rate), repr(rate), f"{rate!r}"):
        assert "claimed" in text
    assert rate.to_json() == {"claimed_bpb": rate.value}
    with pytest.raises(TypeError):
        float(rate)  # type: ignore[arg-type]
    assert isinstance(rate, ClaimedRate) and claimed.kind == "claimed"


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(RecipeError, match="stride"):
        Windows(window=8, stride=9)
