from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from recsys.candidates.popularity import popularity, recent_popularity
from tests.recsys.ranking.blends import sequences

# user 0: 1 2 3; user 1: 2 1; user 2: 3 0 2 (0 is unknown)
ITEMS = np.array([1, 2, 3, 2, 1, 3, 0, 2], dtype=np.int32)
OFFSETS = np.array([0, 3, 5, 8])


def test_popularity_counts_events_and_no_padding() -> None:
    counts = popularity(np.array([0, 1, 2, 2, 0], dtype=np.int32), 3)
    assert counts.dtype == np.float32
    assert counts.tolist() == [0, 1, 2, 0]


def test_recent_popularity_forgets_what_later_events_follow() -> None:
    found = recent_popularity(ITEMS, OFFSETS, 3, decay=0.5)
    np.testing.assert_allclose(found, [0, 0.25 + 1, 0.5 + 0.5 + 1, 1 + 0.25])


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=6))
def test_recent_popularity_equals_the_definition(lists: list[list[int]]) -> None:
    histories = sequences(lists)
    expected = np.zeros(6)
    for own in lists:
        for later, code in enumerate(reversed(own)):
            expected[code] += 0.7**later
    expected[0] = 0
    found = recent_popularity(histories.items, histories.offsets, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert popularity(histories.items, 5).tolist() == [
        0,
        *(sum(own.count(code) for own in lists) for code in range(1, 6)),
    ]
