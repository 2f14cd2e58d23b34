"""Budgets by step: worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.observe.budget import GIB, over
from recsys.settings import BudgetSettings

MINUTES = {"seconds": 600.0}


def of(*seconds: float) -> list[dict[str, Any]]:
    return [{"seconds": value} for value in seconds]


def test_a_step_over_three_times_the_median_says_so() -> None:
    (found,) = over(BudgetSettings(), "train", MINUTES, of(100, 150, 900))
    assert (found.usual, found.value, found.nights) == (150, 600, 3)
    assert str(found) == "The step train took 10.0 min, 4.0 times the median of the last 3 nights (2.5 min)."


@pytest.mark.parametrize(
    ("settings", "done", "before"),
    [
        ({}, MINUTES, of(200, 200, 200)),  # three times it exactly
        ({}, MINUTES, of(1, 1)),  # two nights are no measure
        ({}, {"seconds": 60.0}, of(1, 1, 1)),  # the floor
        ({"enabled": False}, MINUTES, of(1, 1, 1)),
        ({"factor": 601}, MINUTES, of(1, 1, 1)),
        ({"nights": 3}, MINUTES, of(300, 300, 300, 1, 1, 1, 1, 1, 1)),  # only the newest count
        ({}, {"seconds": 1.0}, [{"seconds": 1.0, "peak_bytes": GIB}] * 3),  # no memory was followed this time
        ({}, {"seconds": 1.0, "peak_bytes": GIB}, [{"seconds": 1.0, "peak_bytes": 1}] * 3),
    ],
)
def test_within_its_budget(settings: dict[str, Any], done: dict[str, Any], before: list[dict[str, Any]]) -> None:
    assert over(BudgetSettings(**settings), "train", done, before) == []


def test_memory_is_a_budget_of_its_own_and_older_records_without_it_do_not_count() -> None:
    before = [*of(1, 1, 1), *({"seconds": 1.0, "peak_bytes": n * GIB} for n in (1, 2, 3))]
    (found,) = over(BudgetSettings(), "retrieve", {"seconds": 2.0, "peak_bytes": 7 * GIB}, before)
    assert str(found) == "The step retrieve held 7.0 GiB, 3.5 times the median of the last 3 nights (2.0 GiB)."


def test_a_step_that_took_no_time_before_has_no_ratio() -> None:
    (found,) = over(BudgetSettings(), "export", MINUTES, of(0, 0, 0))
    assert str(found) == "The step export took 10.0 min, more than the median of the last 3 nights (0.0 s)."


@given(st.lists(st.floats(0, 1e4), min_size=3, max_size=9), st.floats(0, 1e5), st.floats(0, 1e5))
def test_more_time_is_never_less_over(before: list[float], value: float, more: float) -> None:
    budget = BudgetSettings(min_seconds=0)
    if over(budget, "x", {"seconds": value}, of(*before)):
        assert over(budget, "x", {"seconds": value + more}, of(*before))
    assert not over(budget, "x", {"seconds": min(value, sorted(before)[0])}, of(*before))  # the fastest of them
