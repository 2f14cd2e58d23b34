from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.metrics import FURTHER, METRICS, MISS, Metric, accuracy, curve, per_user

RANKS = np.array([1, 2, 5, 6, MISS], dtype=np.int64)
EVERY = (*METRICS, *FURTHER)
# two users: targets at 2 and 5; targets at 1, 4 and one that is not ranked
SEVERAL = np.array([5, 2, 1, MISS, 4], dtype=np.int64)
OFFSETS = np.array([0, 2, 5])


def flat(users: list[list[int | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and offsets of users' targets; None is a target that is not ranked."""
    ranks = [MISS if rank is None else rank for user in users for rank in user]
    return np.array(ranks, dtype=np.int64), np.cumsum([0, *map(len, users)])


def from_the_list(targets: list[int | None], metric: str, k: int) -> float:
    """One user's metric, read off a list of relevant places, term by term."""
    relevant = [place in targets for place in range(1, k + 1)]
    if metric == "hr":
        return float(any(relevant))
    if metric == "recall":
        return sum(relevant) / len(targets)
    if metric == "precision":
        return sum(relevant) / k
    if metric == "mrr":
        return next((1 / place for place, hit in enumerate(relevant, 1) if hit), 0.0)
    if metric == "map":
        precisions = [sum(relevant[:place]) / place for place in range(1, k + 1) if relevant[place - 1]]
        return sum(precisions) / len(targets)
    gain = sum(hit / math.log2(place + 1) for place, hit in enumerate(relevant, 1))
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(targets)) + 1))
    return gain / ideal


def test_metrics_by_hand() -> None:
    found = accuracy(RANKS, (5,), "test", EVERY)
    assert found == {
        "test/hr_at_5": pytest.approx(3 / 5),
        "test/ndcg_at_5": pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6)) / 5),
        "test/mrr_at_5": pytest.approx((1 + 1 / 2 + 1 / 5) / 5),
        "test/recall_at_5": pytest.approx(3 / 5),
        "test/precision_at_5": pytest.approx(3 / 25),
        "test/map_at_5": pytest.approx((1 + 1 / 2 + 1 / 5) / 5),
    }


def test_several_targets_by_hand() -> None:
    expected = {
        "hr": [1, 1],
        "recall": [2 / 2, 2 / 3],
        "precision": [2 / 5, 2 / 5],
        "mrr": [1 / 2, 1],
        "map": [(1 / 2 + 2 / 5) / 2, (1 + 2 / 4) / 3],
        "ndcg": [
            (1 / math.log2(3) + 1 / math.log2(6)) / (1 + 1 / math.log2(3)),
            (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2),
        ],
    }
    for metric in EVERY:
        assert per_user(SEVERAL, metric, 5, OFFSETS).tolist() == pytest.approx(expected[metric])


@pytest.mark.parametrize("metric", EVERY)
def test_several_targets_agree_with_ranx(metric: Metric) -> None:
    """Values that ranx gave for random rankings, by user."""
    known = json.loads((Path(__file__).parent / "ranx.json").read_text())
    ranks, offsets = flat(known["ranks"])
    for k in (1, 3, 5, 10, 20):
        ours = per_user(ranks, metric, k, offsets)
        np.testing.assert_allclose(ours, known["values"][f"{metric}_at_{k}"], rtol=0, atol=1e-9)


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sets(st.integers(0, 7)),
)
def test_every_metric_is_its_definition(users: list[list[int | None]], k: int, missed: set[int]) -> None:
    """Each user's first target may be a miss."""
    users = [[None, *user[1:]] if number in missed else user for number, user in enumerate(users)]
    ranks, offsets = flat(users)
    for metric in EVERY:
        expected = [from_the_list(user, metric, k) for user in users]
        np.testing.assert_allclose(per_user(ranks, metric, k, offsets), expected, rtol=0, atol=1e-12)


@given(st.lists(st.one_of(st.integers(1, 30), st.just(int(MISS))), min_size=1, max_size=50), st.integers(1, 40))
def test_one_target_is_a_case_of_several(ranks: list[int], k: int) -> None:
    own = np.array(ranks, dtype=np.int64)
    for metric in EVERY:
        several = per_user(own, metric, k, np.arange(len(own) + 1))
        np.testing.assert_allclose(per_user(own, metric, k), several, rtol=0, atol=1e-12)


def test_a_user_without_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="user 1 has no target"):
        per_user(np.array([1, 2]), "hr", 5, np.array([0, 1, 1, 2]))


@pytest.mark.parametrize("metric", EVERY)
def test_per_user_values_average_to_the_metric(metric: Metric) -> None:
    values = per_user(RANKS, metric, 5)
    assert values.shape == RANKS.shape
    assert values[3] == values[4] == 0.0
    assert values.mean() == pytest.approx(accuracy(RANKS, (5,), metrics=EVERY)[f"{metric}_at_5"])


def test_metrics_grow_with_k() -> None:
    rng = np.random.default_rng(0)
    found = accuracy(rng.integers(1, 50, 200), range(1, 60))
    for metric in METRICS:
        values = [found[f"{metric}_at_{k}"] for k in range(1, 60)]
        assert values == sorted(values)
    assert found["hr_at_59"] == 1.0
    assert found["hr_at_1"] == found["ndcg_at_1"] == found["mrr_at_1"]


@pytest.mark.parametrize("metric", METRICS)
def test_a_curve_passes_through_the_metric_at_each_cutoff(metric: Metric) -> None:
    ranks = np.append(np.random.default_rng(0).integers(1, 40, 100), MISS)
    cutoffs = [1, 2, 7, 30, 100]
    assert curve(ranks, metric, cutoffs) == pytest.approx([per_user(ranks, metric, k).mean() for k in cutoffs])
    assert curve(np.zeros(0, dtype=np.int64), metric, cutoffs) == [0.0] * 5


def test_no_users_score_nothing() -> None:
    assert accuracy(np.array([], dtype=np.int64), (10,)) == {
        "hr_at_10": 0.0,
        "ndcg_at_10": 0.0,
        "mrr_at_10": 0.0,
    }
