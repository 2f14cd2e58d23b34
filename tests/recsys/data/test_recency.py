from __future__ import annotations

import numpy as np
import pytest

from recsys.data.recency import mean_weights, recency_weights

SIZE = 6


def flat(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(history) for history in histories]
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    return items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


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


def test_mean_weights_sum_to_one_and_unknown_items_do_not_count() -> None:
    items, offsets = flat([[1, 2, 3], [3, 0, 2]])
    weights = mean_weights(items, offsets, 3, last=2, decay=0.5).toarray()
    np.testing.assert_allclose(weights[0], [0, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(weights[1], [0, 0, 1, 0])
    assert not mean_weights(np.zeros(1, dtype=np.int32), np.array([0, 1, 1]), 3, last=2, decay=0.5).toarray().any()
