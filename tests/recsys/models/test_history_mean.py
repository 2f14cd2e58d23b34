"""A history as the mean of its newest items' vectors, against results worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.sequences import Sequences
from recsys.models.base import Parts
from recsys.models.history_mean import HistoryMean, history_means
from recsys.settings.read import parse_settings

SETTINGS = parse_settings({"name": "tiny", "interactions": {"source": "log.csv"}})
# rows: padding, two orthogonal items, a mixture, an item without text
VECTORS = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [0, 0]], dtype=np.float32)


def ask(*histories: list[int]) -> np.ndarray:
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    return history_means(VECTORS, items, offsets)


def test_the_newest_item_weighs_most() -> None:
    queries = ask([1, 2], [2, 1], [1, 1, 2])
    assert queries.dtype == np.float32
    length = np.hypot(0.7, 1.0)
    assert queries[0] == pytest.approx([0.7 / length, 1 / length])
    assert queries[1] == pytest.approx([1 / length, 0.7 / length])
    first = 0.7 + 0.49
    assert queries[2] == pytest.approx(np.array([first, 1]) / np.hypot(first, 1))


def test_an_item_without_text_takes_its_step_and_adds_nothing() -> None:
    queries = ask([1, 2, 4], [1, 4, 2])
    assert queries[0] == pytest.approx(ask([1, 2])[0])
    length = np.hypot(0.49, 1.0)
    assert queries[1] == pytest.approx([0.49 / length, 1 / length])


def test_no_history_or_no_text_is_the_zero_vector() -> None:
    queries = ask([], [4], [3], [])
    assert (queries[[0, 1, 3]] == 0).all()
    assert queries[2] == pytest.approx([0.6, 0.8])
    assert history_means(VECTORS, np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64)).shape == (0, 2)


def test_a_query_does_not_depend_on_the_other_histories() -> None:
    generator = np.random.default_rng(0)
    histories = [list(generator.integers(1, 5, size=generator.integers(0, 30))) for _ in range(20)]
    together = ask(*histories)
    for history, query in zip(histories, together, strict=True):
        assert (ask(history)[0] == query).all()


def test_a_bundle_needs_its_item_vectors_only() -> None:
    items, offsets = np.array([1, 2, 3], dtype=np.int32), np.array([0, 2, 3])
    served = HistoryMean(SETTINGS, Parts(vectors=VECTORS, allowed=VECTORS.any(axis=1)))
    assert (served.encode(Sequences.nameless(items, offsets)) == history_means(VECTORS, items, offsets)).all()
