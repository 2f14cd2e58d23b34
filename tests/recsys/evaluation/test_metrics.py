from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.evaluation.metrics import METRICS, accuracy, coverage, per_user, popularity_bands
from recsys.evaluation.ranking import MISS

RANKS = np.array([1, 2, 5, 6, MISS], dtype=np.int64)


def test_metrics_by_hand() -> None:
    found = accuracy(RANKS, (5,), "test")
    assert found == {
        "test/hr_at_5": pytest.approx(3 / 5),
        "test/ndcg_at_5": pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6)) / 5),
        "test/mrr_at_5": pytest.approx((1 + 1 / 2 + 1 / 5) / 5),
    }


@pytest.mark.parametrize("metric", METRICS)
def test_per_user_values_average_to_the_metric(metric: str) -> None:
    values = per_user(RANKS, metric, 5)  # type: ignore[arg-type]
    assert values.shape == RANKS.shape
    assert values[3] == values[4] == 0.0
    assert values.mean() == pytest.approx(accuracy(RANKS, (5,))[f"{metric}_at_5"])


def test_metrics_grow_with_k() -> None:
    rng = np.random.default_rng(0)
    found = accuracy(rng.integers(1, 50, 200), range(1, 60))
    for metric in METRICS:
        values = [found[f"{metric}_at_{k}"] for k in range(1, 60)]
        assert values == sorted(values)
    assert found["hr_at_59"] == 1.0
    assert found["hr_at_1"] == found["ndcg_at_1"] == found["mrr_at_1"]


def test_no_users_score_nothing() -> None:
    assert accuracy(np.array([], dtype=np.int64), (10,)) == {
        "hr_at_10": 0.0,
        "ndcg_at_10": 0.0,
        "mrr_at_10": 0.0,
    }


def test_coverage_counts_distinct_allowed_items() -> None:
    top = np.array([[1, 2, 3], [2, 1, 4], [2, 0, 0]])
    allowed = np.array([False, True, True, True, True, False])
    assert coverage(top, allowed, 1) == pytest.approx(2 / 4)
    assert coverage(top, allowed, 2) == pytest.approx(2 / 4)
    assert coverage(top, allowed, 3) == pytest.approx(4 / 4)
    assert coverage(top, np.zeros(6, dtype=bool), 3) == 0.0


def test_bands_by_popularity() -> None:
    popularity = np.array([0, 1, 50, 3, 3, 0, 0, 2, 1, 1, 1], dtype=np.float32)  # 10 items
    # most popular first: 2, then 3 and 4 (a tie, by code), 7, 1, 8, 9, 10, 5, 6
    codes = np.array([[2, 3, 0], [4, 6, 6]])
    assert popularity_bands(popularity, codes, (0.1, 0.2, 0.5, 1.0)).tolist() == pytest.approx(
        [1 / 5, 1 / 5, 1 / 5, 2 / 5]
    )


def test_bands_of_a_small_catalogue_and_of_nothing() -> None:
    popularity = np.array([0, 5, 1], dtype=np.float32)
    assert popularity_bands(popularity, np.array([1, 2, 2, 2]), (0.01, 0.02, 1.0)).tolist() == [
        0.25,
        0.0,
        0.75,
    ]
    assert popularity_bands(popularity, np.array([0, 0])).sum() == 0.0
