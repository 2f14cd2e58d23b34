from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from recsys.candidates.transitions import Transitions, transitions
from tests.recsys.ranking.blends import sequences, training

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


def test_few_sightings_are_no_certainty() -> None:
    """1 -> 2 was seen once, 3 -> 4 ten times and nothing else: the shares are 1/3 and 10/12, not 1 and 1."""
    counted = Transitions.fit(training(sequences([[1, 2]] + [[3, 4]] * 10), 4))
    np.testing.assert_allclose([counted.next[1, 2], counted.next[3, 4]], [1 / 3, 10 / 12], rtol=1e-6)
