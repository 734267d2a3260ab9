"""Every token is priced once, by the window that the law gives it."""

from hypothesis import given
from hypothesis import strategies as st

from parbyte.predict.windows import plan_windows


def first_input_by_law(token: int, window: int, stride: int) -> int:
    """Chunk k = i // S sees min(kS, W - S) inputs before its own first one."""
    chunk_start = token // stride * stride
    return chunk_start - min(chunk_start, window - stride)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 20))
def test_each_token_is_priced_once_from_where_the_law_says(
    lengths: list[int], stride: int, more: int
) -> None:
    window = stride + more
    priced: dict[tuple[int, int], int] = {}
    for windows in plan_windows(lengths, window, stride):
        assert windows.width <= window
        for lane, start in zip(windows.lane_N.tolist(), windows.start_N.tolist(), strict=True):
            first = start + windows.width - windows.num_priced
            for token in range(first, min(first + windows.num_priced, lengths[lane])):
                assert (lane, token) not in priced
                priced[lane, token] = start
    assert priced == {
        (lane, token): first_input_by_law(token, window, stride)
        for lane, length in enumerate(lengths)
        for token in range(length)
    }
