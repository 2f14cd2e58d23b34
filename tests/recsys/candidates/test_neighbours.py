from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys.candidates.neighbours import Neighbours, company, largest, mean_weights, recent_popularity

# user 0: 1 2 3; user 1: 2 1; user 2: 3 0 2 (0 is unknown)
ITEMS = np.array([1, 2, 3, 2, 1, 3, 0, 2], dtype=np.int32)
OFFSETS = np.array([0, 3, 5, 8])


def test_company_is_the_cosine_of_the_sets_of_users() -> None:
    table = company(ITEMS, OFFSETS, 3).toarray()
    expected = np.zeros((4, 4))
    # users of 1: {0, 1}, of 2: {0, 1, 2}, of 3: {0, 2}
    expected[1, 2] = expected[2, 1] = 2 / np.sqrt(2 * 3)
    expected[1, 3] = expected[3, 1] = 1 / np.sqrt(2 * 2)
    expected[2, 3] = expected[3, 2] = 2 / np.sqrt(3 * 2)
    np.testing.assert_allclose(table, expected, rtol=1e-6)


def test_an_item_that_a_user_repeats_counts_once() -> None:
    table = company(np.array([1, 1, 1, 2], dtype=np.int32), np.array([0, 4]), 2).toarray()
    np.testing.assert_allclose(table[1:, 1:], [[0, 1], [1, 0]])


def test_only_the_newest_events_keep_company() -> None:
    table = company(np.array([1, 2, 3], dtype=np.int32), np.array([0, 3]), 3, last=2).toarray()
    assert table[2, 3] == 1.0 and not table[1].any()


def test_recent_popularity_forgets_what_later_events_follow() -> None:
    found = recent_popularity(ITEMS, OFFSETS, 3, decay=0.5)
    np.testing.assert_allclose(found, [0, 0.25 + 1, 0.5 + 0.5 + 1, 1 + 0.25])


def test_largest_keeps_the_best_of_each_row() -> None:
    table = sparse.csr_array(np.array([[0, 3, 1, 3, 2], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=np.float32))
    assert largest(table, 2).toarray().tolist() == [[0, 3, 0, 3, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert largest(table, 1).toarray().tolist() == [[0, 3, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert largest(table, 9).toarray().tolist() == table.toarray().tolist()


def test_mean_weights_sum_to_one_and_unknown_items_do_not_count() -> None:
    weights = mean_weights(ITEMS, OFFSETS, 3, last=2, decay=0.5).toarray()
    np.testing.assert_allclose(weights[0], [0, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(weights[2], [0, 0, 1, 0])
    assert not mean_weights(np.zeros(1, dtype=np.int32), np.array([0, 1, 1]), 3, last=2, decay=0.5).toarray().any()


@pytest.mark.parametrize("with_text", [True, False])
def test_tables_survive_the_file(with_text: bool) -> None:
    text = np.arange(8, dtype=np.float32).reshape(4, 2) if with_text else None
    words = sparse.csr_array(np.eye(4, 5, dtype=np.float32)) if with_text else None
    counted = Neighbours.count(ITEMS, OFFSETS, 3, text=text, words=words)
    again = Neighbours.from_tensors(counted.to_tensors() | {"blend.mean": np.zeros(1)})
    for name in ("followed", "next", "together", "linear", "linear_next"):
        assert (getattr(again, name) != getattr(counted, name)).nnz == 0
    np.testing.assert_array_equal(again.popular, [0, 2, 3, 2])
    np.testing.assert_array_equal(again.recent, counted.recent)
    if with_text:
        assert again.text is not None and again.words is not None
        np.testing.assert_array_equal(again.text, text)
        np.testing.assert_array_equal(again.words.toarray(), np.eye(4, 5))
    else:
        assert again.text is None and again.words is None


def test_few_sightings_are_no_certainty() -> None:
    """1 -> 2 was seen once, 3 -> 4 ten times and nothing else: the shares are 1/3 and 10/12, not 1 and 1."""
    items = np.array([1, 2] + [3, 4] * 10, dtype=np.int32)
    counted = Neighbours.count(items, np.arange(0, 23, 2), 4)
    np.testing.assert_allclose([counted.next[1, 2], counted.next[3, 4]], [1 / 3, 10 / 12], rtol=1e-6)
