"""Population stability: its value by hand, what chance explains, and the bins of popularity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.gate.drift import by_chance, check_drift, popularity_bins, stability


def test_stability_by_hand() -> None:
    # shares 1/4 and 3/4 against 1/2 and 1/2; the smoothing is too small to show
    expected = (0.25 - 0.5) * math.log(0.5) + (0.75 - 0.5) * math.log(1.5)
    assert stability(np.array([5e6, 5e6]), np.array([2.5e6, 7.5e6])) == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 1000))
def test_equal_distributions_stay_below_what_chance_explains(seed: int) -> None:
    """With the sampling noise added, no sane day of twenty users or more turns red."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(8))
    users = int(rng.integers(20, 400))
    before, now = rng.multinomial(20 * users, shares), rng.multinomial(users, shares)
    check = check_drift(
        "x", [str(n) for n in range(8)], before, now, users_before=20 * users, users_now=users, limit=0.25
    )
    assert check.status == "passed"


def test_a_shift_is_found_and_named() -> None:
    check = check_drift(
        "events",
        ["view", "purchase"],
        np.array([900, 100]),
        np.array([10, 190]),
        users_before=500,
        users_now=100,
        limit=0.25,
    )
    assert check.status == "failed"
    assert "view went from 90% to 5%" in check.sentence


def test_few_users_and_an_off_switch_are_said() -> None:
    counts = np.array([1.0, 9.0])
    few = check_drift("x", ["a", "b"], counts, counts, users_before=100, users_now=3, limit=0.25)
    assert (few.status, few.sentence) == ("skipped", "3 users are too few to compare (20 are needed).")
    off = check_drift("x", ["a", "b"], counts, counts, users_before=100, users_now=100, limit=None)
    assert off.sentence == "Switched off."


def test_chance_explains_less_with_more_users() -> None:
    assert by_chance(10, 10_000, 100) > 3 * by_chance(10, 10_000, 1_000)
    assert by_chance(1, 20, 20) == 0.0


def test_bins_of_popularity_hold_equal_shares_of_the_events() -> None:
    older = np.array([0.0, 50.0, 50.0, 50.0, 50.0, 0.0])
    assert popularity_bins(older, bins=2).tolist() == [2, 0, 0, 1, 1, 2]
    assert popularity_bins(np.zeros(3)).tolist() == [10, 10, 10]
