from __future__ import annotations

import numpy as np
import pytest

from recsys.candidates.popularity import popularity
from recsys.candidates.transitions import transitions
from recsys.data.recency import recency_weights
from recsys.evaluation.baselines import score_popularity, score_text_and_transitions, score_transitions

# two users: 1 2 3 2 4 5 and 3 1; item 6 never occurs
ITEMS = np.array([1, 2, 3, 2, 4, 5, 3, 1], dtype=np.int32)
OFFSETS = np.array([0, 6, 8])
SIZE = 6


def flat(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(history) for history in histories]
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    return items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


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
