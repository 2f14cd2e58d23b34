from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from recsys.candidates.co_occurrence import user_cosines
from tests.recsys.ranking.blends import sequences

# user 0: 1 2 3; user 1: 2 1; user 2: 3 0 2 (0 is unknown)
ITEMS = np.array([1, 2, 3, 2, 1, 3, 0, 2], dtype=np.int32)
OFFSETS = np.array([0, 3, 5, 8])


def test_it_is_the_cosine_of_the_sets_of_users() -> None:
    table = user_cosines(ITEMS, OFFSETS, 3).toarray()
    expected = np.zeros((4, 4))
    # users of 1: {0, 1}, of 2: {0, 1, 2}, of 3: {0, 2}
    expected[1, 2] = expected[2, 1] = 2 / np.sqrt(2 * 3)
    expected[1, 3] = expected[3, 1] = 1 / np.sqrt(2 * 2)
    expected[2, 3] = expected[3, 2] = 2 / np.sqrt(3 * 2)
    np.testing.assert_allclose(table, expected, rtol=1e-6)


def test_an_item_that_a_user_repeats_counts_once() -> None:
    table = user_cosines(np.array([1, 1, 1, 2], dtype=np.int32), np.array([0, 4]), 2).toarray()
    np.testing.assert_allclose(table[1:, 1:], [[0, 1], [1, 0]])


def test_only_the_newest_events_keep_user_cosines() -> None:
    table = user_cosines(np.array([1, 2, 3], dtype=np.int32), np.array([0, 3]), 3, last=2).toarray()
    assert table[2, 3] == 1.0 and not table[1].any()


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=6), st.integers(1, 8))
def test_it_equals_the_definition(lists: list[list[int]], last: int) -> None:
    histories = sequences(lists)
    found = user_cosines(histories.items, histories.offsets, 6, last=last).toarray()
    users = [{user for user, own in enumerate(lists) if code in own[-last:]} for code in range(7)]
    for one in range(7):
        for other in range(7):
            sizes = len(users[one]) * len(users[other])
            apart = one != other and one and other and sizes
            expected = len(users[one] & users[other]) / np.sqrt(sizes) if apart else 0.0
            np.testing.assert_allclose(found[one, other], expected, rtol=1e-6)
