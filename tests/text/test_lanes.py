"""Lanes are a balanced, invertible layout of documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from parbyte.text.lanes import join_lanes, plan_lanes

BOS = 256
documents_of_ids = st.lists(
    st.lists(st.integers(0, 255), max_size=60).map(lambda ids: np.array(ids, np.uint16)),
    max_size=12,
)


def stream_of(documents: list[NDArray[np.uint16]]) -> list[int]:
    return [token for document in documents for token in (BOS, *document.tolist())]


@given(documents_of_ids, st.integers(1, 12), st.integers(1, 50))
def test_joining_undoes_planning(
    documents: list[NDArray[np.uint16]], num_lanes: int, min_lane_tokens: int
) -> None:
    lanes = plan_lanes(documents, BOS, num_lanes, min_lane_tokens=min_lane_tokens)
    assert join_lanes(lanes, BOS).tolist() == stream_of(documents)
    assert 1 <= len(lanes.tokens) <= num_lanes
    assert len(lanes.continues) == len(lanes.tokens)


@given(documents_of_ids, st.integers(1, 6))
def test_every_token_but_the_implied_bos_is_coded_once(
    documents: list[NDArray[np.uint16]], num_lanes: int
) -> None:
    lanes = plan_lanes(documents, BOS, num_lanes, min_lane_tokens=1)
    implied = sum(not flag for flag in lanes.continues)
    assert sum(lanes.lengths) + implied == len(stream_of(documents))


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_no_lane_is_much_longer_than_its_share(sizes: list[int], num_lanes: int) -> None:
    documents = [np.zeros(size, np.uint16) for size in sizes]
    lanes = plan_lanes(documents, BOS, num_lanes, min_lane_tokens=1)
    share = (sum(sizes) + len(sizes)) / len(lanes.tokens)
    assert max(lanes.lengths) <= 1.125 * share + 2


def test_short_documents_stay_whole() -> None:
    documents = [np.full(90 + i % 20, i % 256, np.uint16) for i in range(200)]
    lanes = plan_lanes(documents, BOS, 8, min_lane_tokens=1)
    assert lanes.continues == (False,) * 8


def test_a_document_longer_than_its_lane_is_cut() -> None:
    lanes = plan_lanes([np.arange(200, dtype=np.uint16)], BOS, 4, min_lane_tokens=1)
    assert lanes.continues == (False, True, True, True)
    assert max(lanes.lengths) - min(lanes.lengths) <= 2


def test_a_short_text_gets_fewer_lanes() -> None:
    documents = [np.zeros(2500, np.uint16)]
    assert len(plan_lanes(documents, BOS, 8).tokens) == 2
    assert len(plan_lanes([], BOS, 8).tokens) == 1


@pytest.mark.parametrize("documents", [[], [np.zeros(0, np.uint16)], [np.zeros(0, np.uint16)] * 3])
def test_texts_without_bytes_have_lanes_too(documents: list[NDArray[np.uint16]]) -> None:
    lanes = plan_lanes(documents, BOS, 8, min_lane_tokens=1)
    assert join_lanes(lanes, BOS).tolist() == [BOS] * len(documents)


def test_ended_lanes_are_padded() -> None:
    lanes = plan_lanes([np.arange(5, dtype=np.uint16)], BOS, 2, min_lane_tokens=1)
    block = lanes.padded(1, 4, BOS)
    assert block.shape == (2, 3)
    rows = [[*lane.tolist(), BOS, BOS, BOS][1:4] for lane in lanes.tokens]
    assert block.tolist() == rows
