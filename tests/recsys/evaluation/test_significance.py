from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.evaluation import significance
from recsys.evaluation.metrics import per_user
from recsys.evaluation.significance import Interval, holm, intervals, paired_test


def interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Of one metric [U]."""
    return intervals(values[:, None], rng)[0]


def test_width_matches_the_standard_error() -> None:
    hits = (np.random.default_rng(1).random(4000) < 0.3).astype(float)
    found = interval(hits, np.random.default_rng(0))
    error = hits.std() / np.sqrt(len(hits))
    assert found.mean == hits.mean()
    assert found.low == pytest.approx(hits.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(hits.mean() + 1.96 * error, abs=0.15 * error)


def test_pairing_shows_a_small_steady_gain() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(500)
    better = base + 0.02 + 0.01 * rng.standard_normal(500)
    found = interval(better - base, np.random.default_rng(0))
    assert found.low > 0.015
    assert found.high < 0.025
    # the two means' own intervals overlap
    rng = np.random.default_rng(0)
    assert interval(better, rng).low < interval(base, rng).high


def test_equal_models_do_not_differ() -> None:
    assert interval(np.zeros(50), np.random.default_rng(0)) == Interval(mean=0.0, low=0.0, high=0.0)


def test_seeded_and_independent_of_chunks() -> None:
    values = np.random.default_rng(4).random((37, 2))
    first = intervals(values, np.random.default_rng(5))
    assert intervals(values, np.random.default_rng(5)) == first
    assert intervals(values, np.random.default_rng(6)) != first
    with mock.patch.object(significance, "CHUNK_DRAWS", 100):
        chunked = intervals(values, np.random.default_rng(5))
    for one, other in zip(first, chunked, strict=True):
        assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_refuses_to_speak_of_nobody() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        interval(np.zeros(0), np.random.default_rng(0))


# --- paired tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [1, 10_000])
def test_a_resample_is_what_drawing_users_gives(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of distinct values, and users, against users drawn here."""
    monkeypatch.setattr(significance, "FEW", few)
    values = np.random.default_rng(0).choice([0.0, 0.0, 0.0, 0.5, 1.0], 400)
    found = interval(values, np.random.default_rng(1))
    drawn = np.random.default_rng(2).integers(400, size=(4000, 400))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    error = values.std() / np.sqrt(400)
    assert found.low == pytest.approx(low, abs=0.15 * error)
    assert found.high == pytest.approx(high, abs=0.15 * error)


def test_holm_by_hand() -> None:
    # ascending 0.01, 0.02, 0.03, 0.2: times 4, 3, 2, 1, and never below the one before
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.4, 0.5, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    found = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
    for raw, corrected in zip(p_values, found, strict=True):
        assert raw <= corrected <= 1.0
    assert max(found) <= min(1.0, max(p_values) * len(p_values)) + 1e-12
    assert min(found) == pytest.approx(min(1.0, min(p_values) * len(p_values)))


def test_wilcoxon_is_that_of_scipy_over_the_users_who_differ() -> None:
    differences = np.append(np.zeros(50), np.arange(1, 21) * np.where(np.arange(20) % 4 == 0, -1.0, 1.0))
    ranks = np.arange(1, 21)
    statistic = ranks[::4].sum()  # of the negative ones
    mean, deviation = 20 * 21 / 4, np.sqrt(20 * 21 * 41 / 24)
    found = paired_test(differences, np.random.default_rng(0)).p_wilcoxon
    assert found == pytest.approx(2 * stats.norm.cdf((statistic - mean) / deviation), rel=0.15)  # scipy's is exact


def test_equal_runs_are_not_different() -> None:
    found = paired_test(np.zeros(200), np.random.default_rng(0))
    assert (found.mean, found.low, found.high, found.detectable) == (0.0, 0.0, 0.0, 0.0)
    assert found.p_bootstrap == found.p_wilcoxon == 1.0


def test_the_p_value_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.04, 0.06, 0.08):
        found = paired_test(rng.standard_normal(500) * 0.4 + shift, np.random.default_rng(0))
        assert (found.p_bootstrap < 0.05) == (found.low > 0 or found.high < 0)
        assert found.p_bootstrap == pytest.approx(2 * stats.norm.sf(abs(found.mean) / (0.4 / np.sqrt(500))), abs=0.06)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "PAIRED_RESAMPLES", 1000)


@pytest.mark.usefixtures("few_resamples")
def test_a_difference_of_the_detectable_size_is_found_in_four_of_five() -> None:
    spread = np.random.default_rng(0).standard_normal((200, 300)).round(1)  # few distinct values, for speed
    size = (1.96 + 0.8416) / np.sqrt(300)
    tests = [paired_test(row + size, np.random.default_rng(n)) for n, row in enumerate(spread)]
    assert tests[0].detectable == pytest.approx(size, rel=0.1)
    assert 0.72 < np.mean([test.p_bootstrap < 0.05 for test in tests]) < 0.88


def reseeded(count: int, users: int, seed: int) -> np.ndarray:
    """NDCG@10 [count, users] of equal models: each user has a difficulty, each model noise of its own."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(2.5, 1.5, users)
    ranks = np.exp(difficulty + rng.normal(0, 0.7, (count, users))).astype(np.int64) + 1
    return np.stack([per_user(one, "ndcg", 10) for one in ranks])


@pytest.mark.usefixtures("few_resamples")
def test_twenty_equal_models_are_called_different_at_most_once() -> None:
    reference, *others = reseeded(21, 2000, seed=5)
    tests = [paired_test(other - reference, np.random.default_rng(n)) for n, other in enumerate(others)]
    assert sum(p < 0.05 for p in holm([test.p_bootstrap for test in tests])) <= 1
    assert sum(p < 0.05 for p in holm([test.p_wilcoxon for test in tests])) <= 1
    # pairs that share no model, without any correction: one of twenty by chance
    pairs = [reseeded(2, 1000, seed) for seed in range(200)]
    alone = [paired_test(one - other, np.random.default_rng(0)) for one, other in pairs]
    for p_values in ([test.p_bootstrap for test in alone], [test.p_wilcoxon for test in alone]):
        assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.095  # 2 to 19 of 200; 10 expected


def test_a_test_needs_users() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        paired_test(np.zeros(0), np.random.default_rng(0))
    assert paired_test(np.ones(1), np.random.default_rng(0)).detectable == 0.0


def test_rows_of_one_user_are_not_independent() -> None:
    """Copies of every row of the same user change nothing; as users of their own they would narrow the interval."""
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 0.5, 1.0], 300)
    copies, owner = np.tile(values, 4), np.tile(np.arange(300), 4)
    (once,) = intervals(values[:, None], np.random.default_rng(1))
    (again,) = intervals(copies[:, None], np.random.default_rng(1), owner)
    assert (once.mean, once.low, once.high) == pytest.approx((again.mean, again.low, again.high))
    (apart,) = intervals(copies[:, None], np.random.default_rng(1))
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.15)
    differences = values - 0.4
    alone = paired_test(differences, np.random.default_rng(0))
    together = paired_test(np.tile(differences, 4), np.random.default_rng(0), owner)
    for name in ("n", "mean", "low", "high", "p_bootstrap", "p_wilcoxon", "detectable"):
        assert getattr(together, name) == pytest.approx(getattr(alone, name))


def test_users_with_more_rows_weigh_more_as_in_the_mean() -> None:
    values, owner = np.array([1.0, 1.0, 1.0, 0.0]), np.array([7, 7, 7, 3])
    (found,) = intervals(values[:, None], np.random.default_rng(0), owner)
    assert found == Interval(mean=0.75, low=0.0, high=1.0)  # the other user twice, this one twice
