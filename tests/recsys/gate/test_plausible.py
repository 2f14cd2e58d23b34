"""Figures that are too good: a leak shows as a jump, as test above validation, or as a promise that was not kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recsys.gate.plausible import SURE_HITS, check_hits, check_jump, check_over_validation, check_promise

RNG = np.random.default_rng(0)
LEAK = "Look for a target that leaks"


def hits(users: int, share: float) -> np.ndarray:
    return (np.arange(users) < share * users).astype(np.float64)


def test_a_leaked_target_jumps_above_the_champion() -> None:
    owner = np.arange(500)
    leaked, honest, better = hits(500, 0.96), RNG.permutation(hits(500, 0.2)), RNG.permutation(hits(500, 0.3))
    check = check_jump("jump", "what is served now", leaked, honest, owner, 0, 3.0)
    assert check.failed and "4.8 times that of what is served now" in check.sentence and LEAK in check.sentence
    assert check_jump("jump", "what is served now", better, honest, owner, 0, 3.0).status == "passed"
    assert check_jump("jump", "it", leaked, np.zeros(500), owner, 0, 3.0).sentence == "The figure of it is 0."
    assert check_jump("jump", "it", leaked[:9], honest[:9], owner[:9], 0, 3.0).status == "skipped"
    assert check_jump("jump", "it", leaked, honest, owner, 0, None).sentence == "Switched off."


def test_a_jump_of_few_hits_is_chance() -> None:
    own, other = hits(100, 0.05), hits(100, 0.01)
    check = check_jump("jump", "it", own, RNG.permutation(other), np.arange(100), 0, 3.0)
    assert check.status == "passed" and check.sentence.endswith("within chance.")


@pytest.mark.parametrize(
    ("test", "validation", "users", "status"),
    [
        (0.30, 0.28, 500, "passed"),
        (0.90, 0.28, 500, "failed"),
        (0.05, 0.02, 60, "passed"),  # within chance
        (0.90, None, 500, "skipped"),
        (0.90, 0.28, 9, "skipped"),
    ],
)
def test_test_far_above_validation(test: float, validation: float | None, users: int, status: str) -> None:
    check = check_over_validation(hits(500, test), validation, users, 1.5)
    assert check.status == status
    assert (LEAK in check.sentence) == (status == "failed")


@pytest.mark.parametrize(
    ("kept", "users", "promised", "status"),
    [
        (0.30, 400, 0.35, "passed"),
        (0.15, 400, 0.35, "passed"),  # tomorrow is harder than a held-out event
        (0.01, 400, 0.35, "failed"),  # the figures knew their targets
        (0.0, 25, 0.35, "passed"),  # 25 users without a hit are chance
        (0.0, 10, 0.35, "skipped"),
        (0.3, 400, None, "skipped"),
    ],
)
def test_a_promise_that_the_table_did_not_keep(kept: float, users: int, promised: float | None, status: str) -> None:
    check = check_promise(hits(users, kept).astype(bool), promised, 0.2)
    assert check.status == status
    assert (LEAK in check.sentence) == (status == "failed")


def test_figures_of_zero_are_not_called_so_many_times_another_one() -> None:
    nothing, some, owner = np.zeros(500), hits(500, 0.2), np.arange(500)
    assert check_jump("jump", "it", nothing, some, owner, 0, 3.0).sentence == "The night's figure is 0."
    assert check_over_validation(nothing, 0.3, 500, 1.5).sentence == "The figure on test is 0."
    assert check_over_validation(some, 0.0, 500, 1.5).sentence == "The figure on validation is 0."
    assert check_promise(some > 0, 0.0, 0.3).sentence == "The hit rate of the release before is 0."


@pytest.mark.parametrize(
    ("own", "other", "users", "status"),
    [
        (0, 0, 500, "skipped"),
        (0, 3, 500, "failed"),
        (0, 2, 500, "passed"),  # within chance
        (1, 400, 500, "passed"),  # how much better another one is, others decide
        (0, 30, 59, "skipped"),
        (0, 30, 60, "failed"),
    ],
)
def test_a_night_that_hits_nothing_where_another_ranker_does(own: int, other: int, users: int, status: str) -> None:
    rivals = {"the baseline popularity": hits(users, other / users), "the baseline transitions": np.zeros(users)}
    check = check_hits(hits(users, own / users), rivals, np.arange(users))
    assert check.status == status
    if status == "failed":
        assert check.sentence == (
            f"The night answers none of {users} test questions; the baseline popularity answers {other}."
        )


def test_equally_good_rankers_are_seldom_kept_back_for_hitting_nothing() -> None:
    mean = np.linspace(0.01, 10, 1_000)
    assert (np.exp(-mean) * stats.poisson.sf(SURE_HITS - 1, mean)).max() < 0.05
