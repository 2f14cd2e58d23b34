from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from recsys.candidates.counts import (
    popularity,
    recency_weights,
    score_popularity,
    score_text_and_transitions,
    score_transitions,
    text_queries,
    transitions,
)

# two users: 1 2 3 2 4 5 and 3 1; item 6 never occurs
ITEMS = np.array([1, 2, 3, 2, 4, 5, 3, 1], dtype=np.int32)
OFFSETS = np.array([0, 6, 8])
SIZE = 6


def flat(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(history) for history in histories]
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    return items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def slow_transitions(histories: list[list[int]], size: int, reach: int) -> np.ndarray:
    table = np.zeros((size + 1, size + 1))
    for history in histories:
        for p, before in enumerate(history):
            for q in range(p + 1, min(p + reach, len(history) - 1) + 1):
                if before and history[q]:
                    table[before, history[q]] += 1 / (q - p)
    totals = table.sum(axis=1, keepdims=True)
    return np.divide(table, totals, out=table, where=totals > 0)


def test_popularity_counts_events_and_no_padding() -> None:
    counts = popularity(np.array([0, 1, 2, 2, 0], dtype=np.int32), 3)
    assert counts.dtype == np.float32
    assert counts.tolist() == [0, 1, 2, 0]


def test_transitions_by_hand() -> None:
    table = transitions(ITEMS, OFFSETS, SIZE).toarray()
    # after 1 in the first history: 2 at 1 step, 3 at 2, 2 at 3, 4 at 4 steps; 5 is five steps away
    row = np.array([0, 0, 1 + 1 / 3, 1 / 2, 1 / 4, 0, 0])
    assert table[1] == pytest.approx(row / row.sum())
    # after 3: 2, 4, 5 in the first history, 1 in the second; the histories' border is no transition
    row = np.array([0, 1, 1, 0, 1 / 2, 1 / 3, 0])
    assert table[3] == pytest.approx(row / row.sum())
    assert not table[5].any()
    assert not table[6].any()
    assert not table[0].any()


@given(st.lists(st.lists(st.integers(0, 7), max_size=9), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_transitions_equal_the_definition(histories: list[list[int]], reach: int) -> None:
    items, offsets = flat(histories)
    table = transitions(items, offsets, 7, reach=reach)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table.toarray(), slow_transitions(histories, 7, reach), rtol=1e-6)


def test_recency_weights_by_hand() -> None:
    items, offsets = flat([[4, 1, 2], [], [3, 0, 3]])
    weights = recency_weights(items, offsets, SIZE).toarray()
    assert weights[0].tolist() == pytest.approx([0, 0.7, 1, 0, 0.49, 0, 0])
    assert not weights[1].any()
    # the unknown item in the middle keeps its place, and item 3 counts twice
    assert weights[2].tolist() == pytest.approx([0, 0, 0, 1.49, 0, 0, 0])


def test_only_the_newest_items_count() -> None:
    items, offsets = flat([[1, 2, 3, 4]])
    assert recency_weights(items, offsets, SIZE, last=2).toarray()[0].tolist() == pytest.approx([0, 0, 0, 0.7, 1, 0, 0])


def test_transition_scores_are_weighted_rows() -> None:
    table = transitions(ITEMS, OFFSETS, SIZE)
    items, offsets = flat([[6, 1, 2], [2]])
    weights = recency_weights(items, offsets, SIZE)
    dense = table.toarray()
    scores = score_transitions(weights, table)(0, 2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[0], 0.7 * dense[1] + dense[2], rtol=1e-6)
    np.testing.assert_allclose(scores[1], dense[2], rtol=1e-6)
    np.testing.assert_array_equal(score_transitions(weights, table)(1, 2), scores[1:])


def test_unknown_history_scores_nothing() -> None:
    table = transitions(ITEMS, OFFSETS, SIZE)
    vectors = np.zeros((SIZE + 1, 2), dtype=np.float32)
    vectors[1:, 0] = 1.0
    items, offsets = flat([[0, 0], []])
    weights = recency_weights(items, offsets, SIZE)
    assert not score_transitions(weights, table)(0, 2).any()
    assert not score_text_and_transitions(weights, table, vectors)(0, 2).any()


def test_popularity_scores_belong_to_the_caller() -> None:
    counts = popularity(ITEMS, SIZE)
    scores = score_popularity(counts)(0, 2)
    scores[:] = -1.0
    assert score_popularity(counts)(3, 4)[0].tolist() == counts.tolist()


def test_text_adds_weighted_similarities() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [0, 0], [0, -1], [-2, 0]], dtype=np.float32)
    table = transitions(ITEMS, OFFSETS, SIZE)
    items, offsets = flat([[2, 1]])
    weights = recency_weights(items, offsets, SIZE)
    counted = score_transitions(weights, table)(0, 1)
    scores = score_text_and_transitions(weights, table, vectors, weight=2.0)(0, 1)
    assert scores.dtype == np.float32
    # item 1 is the newest, item 2 weighs .7: similarities 1 x (x-coordinate) + .7 x (y-coordinate)
    assert (scores - 2.0 * counted)[0].tolist() == pytest.approx([0, 1, 0.7, 0.6 + 0.56, 0, -0.7, -2], abs=1e-6)


def test_text_queries_are_unit_vectors_or_nothing() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], dtype=np.float32)
    items, offsets = flat([[2, 1], [3, 0], []])
    queries = text_queries(recency_weights(items, offsets, 3), vectors)
    assert queries.dtype == np.float32
    assert queries[0] == pytest.approx(np.array([1, 0.7]) / np.hypot(1, 0.7))
    assert not queries[1:].any()
