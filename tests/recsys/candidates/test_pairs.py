"""Counting within bounds: blocks of rows and cut rows change nothing of what is kept, and budgets hold."""

from __future__ import annotations

from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from recsys.candidates import pairs, tables
from recsys.candidates.base import LogSizes
from recsys.candidates.co_occurrence import CoOccurrence, user_cosines
from recsys.candidates.registry import SOURCES
from recsys.candidates.transitions import transitions
from tests.recsys.ranking.blends import sequences, training

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=8)


def cosines(lists: list[list[int]], size: int) -> np.ndarray:
    """By the definition, in float32 as the table has it."""
    had = np.zeros((len(lists), size + 1), dtype=np.float32)
    for user, own in enumerate(lists):
        had[user, [code for code in own if code]] = 1
    both = had.T @ had
    users = np.maximum(both.diagonal(), 1)
    np.fill_diagonal(both, 0)
    return both / np.sqrt(users[:, None] * users[None, :])


def cut(table: np.ndarray, kept: int) -> np.ndarray:
    """The largest entries of each row; of equal ones those of the lowest columns."""
    found = np.zeros_like(table)
    for row, own in enumerate(table):
        best = np.argsort(-own, kind="stable")[:kept]
        found[row, best] = own[best]
    return found


@given(LISTS, st.integers(1, 9), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_tables_of_any_blocks_hold_the_largest_entries_of_the_whole(
    lists: list[list[int]], kept: int, at_once: int
) -> None:
    histories = sequences(lists)
    items, offsets = histories.items, histories.offsets
    followed = transitions(items, offsets, 9, smoothing=2.0).toarray()
    with patch.object(pairs, "OF_ROWS", at_once):
        together = user_cosines(items, offsets, 9, kept=kept).toarray()
        found = transitions(items, offsets, 9, smoothing=2.0, kept=kept).toarray()
    np.testing.assert_array_equal(together, cut(cosines(lists, 9), kept))
    np.testing.assert_array_equal(found, cut(followed, kept))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 60), st.integers(1, 2_000))
def test_as_many_newest_events_count_as_the_budget_allows(lengths: list[int], longest: int, budget: int) -> None:
    with patch.object(pairs, "PAIRS", budget):
        length = pairs.affordable_length(np.array(lengths), longest)
    cost = [(np.minimum(lengths, n) ** 2).sum() for n in range(longest + 2)]
    assert length == longest or cost[length + 1] > budget
    assert length == 1 or cost[length] <= budget  # of every history one event counts, whatever it costs


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 50), st.integers(1, 500))
def test_rows_keep_as_many_entries_as_the_table_may_hold(lengths: list[int], kept: int, budget: int) -> None:
    with patch.object(tables, "ENTRIES", budget):
        found = tables.affordable(np.array(lengths, dtype=np.int64), kept)
    held = [np.minimum(lengths, n).sum() for n in range(kept + 2)]
    assert found == 1 or held[found] <= budget
    assert found == kept or held[found + 1] > budget


def test_long_histories_are_cut_to_their_newest_events() -> None:
    items, offsets = np.arange(1, 11, dtype=np.int32), np.array([0, 0, 6, 7, 10, 10])
    cropped, starts = pairs.newest(items, offsets, 2)
    assert cropped.tolist() == [5, 6, 7, 9, 10] and starts.tolist() == [0, 0, 2, 3, 5, 5]


def test_a_budget_of_pairs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users of four events: with a budget of 8 pairs, two events of each, 8 of 32 pairs."""
    monkeypatch.setattr(pairs, "PAIRS", 8)
    source = CoOccurrence.fit(training(sequences([[1, 2, 3, 4], [2, 1, 4, 3]]), 4))
    reach = source.reach()
    assert reach.counted == 8 / 32
    assert reach.speaks.tolist() == reach.proposed.tolist() == [False, False, False, True, True]


def test_sets_leave_their_histories_as_they_were() -> None:
    items = np.array([3, 1, 3, 0], dtype=np.int32)
    found = pairs.sets(items, np.array([0, 4]), 3)
    assert items.tolist() == [3, 1, 3, 0]
    assert sparse.csr_array(found).toarray().tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("factor", [1, 1_000_000])
def test_memory_is_bounded_however_long_the_log(factor: int) -> None:
    """A table holds no more than `ENTRIES`, and counting no more than its blocks and the events."""
    lengths = np.full(1_000, 20 * factor)
    sizes = LogSizes(lengths=lengths, items=100_000 * factor, touched=100_000 * factor)
    for source in SOURCES.values():
        if not source.READS_CATALOGUE:
            kept, fitting = source.memory(sizes)
            assert kept <= 5 * 2**30 and fitting <= 5 * 2**30 + 24 * 50 * len(lengths)
