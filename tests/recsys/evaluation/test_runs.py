from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from recsys.errors import InputError
from recsys.evaluation.metrics import MISS
from recsys.evaluation.runs import compare_runs, parse_metric
from recsys.evaluation.users import UserValues

USERS = 400


def run(ranks: np.ndarray, users: list[str] | None = None, **about: object) -> UserValues:
    frame = pl.DataFrame(
        {
            "user_id": users or [f"u{n:03}" for n in range(len(ranks))],
            "target": [None if n % 7 == 0 else f"i{n % 5}" for n in range(len(ranks))],
            "rank": pl.Series([None if rank == MISS else int(rank) for rank in ranks], dtype=pl.Int64),
        }
    )
    return UserValues(frame=frame, about={"name": "shop", "exclude_seen": True, **about})


def random_ranks(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([1, 2, 5, 30, MISS], USERS)


def test_a_better_run_is_called_better_and_a_worse_one_worse() -> None:
    base = random_ranks(0)
    better = np.where(np.arange(USERS) % 10 == 0, 1, base)
    report = compare_runs({"a": run(base), "b": run(better), "c": run(np.full(USERS, MISS))}, [("hr", 10)])
    assert report == json.loads(json.dumps(report, allow_nan=False))
    up, down = report["comparisons"]
    assert (up["run"], up["reference"], up["metric"], up["outcome"]) == ("b", "a", "hr_at_10", "better")
    assert up["difference"] == pytest.approx((better <= 10).mean() - (base <= 10).mean())
    assert 0 < up["low"] < up["difference"] < up["high"] and up["p"] < 0.05
    assert up["p"] == pytest.approx(2 * up["p_uncorrected"]) and down["p"] <= up["p"]
    assert up["verdict"].startswith(f"b is better than a by {up['difference']:.4f} HR@10 (95% interval +")
    assert down["outcome"] == "worse" and "c is worse than a by" in down["verdict"]
    assert [one["metrics"]["hr_at_10"] for one in report["runs"]] == pytest.approx(
        [(base <= 10).mean(), (better <= 10).mean(), 0.0]
    )


def test_runs_that_differ_by_chance_cannot_be_told_apart() -> None:
    report = compare_runs({"a": run(random_ranks(0)), "b": run(random_ranks(1))}, [("ndcg", 10), ("mrr", 20)])
    assert report["users"] == USERS
    for one in report["comparisons"]:
        assert one["outcome"] == "undecided"
        assert "would be found in four of five such tests" in one["verdict"]
        assert one["low"] < 0 < one["high"] < one["smallest_detectable"] * 2
    same = compare_runs({"a": run(random_ranks(0)), "b": run(random_ranks(0))})["comparisons"][0]
    assert same["verdict"].endswith("no user's value differs.") and same["p"] == same["p_wilcoxon"] == 1.0


def test_users_are_paired_by_id_whatever_the_order() -> None:
    ranks = random_ranks(0)
    turned = run(ranks)
    turned = UserValues(frame=turned.frame.sample(fraction=1.0, shuffle=True, seed=3), about=turned.about)
    assert compare_runs({"a": run(ranks), "b": turned})["comparisons"][0]["p_wilcoxon"] == 1.0


def test_a_user_with_several_targets_is_drawn_with_all_of_them() -> None:
    users = ["ann"] * 3 + ["bob"]
    report = compare_runs(
        {"a": run(np.array([1, 1, MISS, MISS]), users), "b": run(np.array([1, 1, 1, MISS]), users)}, [("hr", 10)]
    )
    assert report["users"] == 2
    (found,) = report["comparisons"]
    assert found["difference"] == pytest.approx(1 / 4)  # the mean over targets, as the report has it
    assert (found["low"], found["high"]) == pytest.approx((0, 1 / 3))  # bob twice, ann twice
    assert report["notes"] == ["Users have several targets; the bootstrap draws users with all of theirs."]


def test_other_test_parts_are_refused_in_one_sentence() -> None:
    ranks = random_ranks(0)
    others = ["x", *(f"u{n:03}" for n in range(1, USERS))]
    with pytest.raises(InputError) as caught:
        compare_runs({"a": run(ranks), "b": run(ranks), "c": run(ranks, others)})
    assert str(caught.value) == (
        "a and c were measured on different test parts (400 and 400 rows, 399 with the same user and target), so their "
        "difference would mean nothing; evaluate both bundles on the same tables with the same split."
    )


def test_another_protocol_is_noted() -> None:
    ranks = random_ranks(0)
    report = compare_runs({"a": run(ranks), "b": run(ranks, exclude_seen=False)})
    assert "exclude_seen" in report["notes"][0]


@pytest.mark.parametrize(
    ("text", "parsed"), [("ndcg@10", ("ndcg", 10)), ("test/hr_at_5", ("hr", 5)), ("MAP@20", ("map", 20))]
)
def test_metrics_by_either_name(text: str, parsed: tuple[str, int]) -> None:
    assert parse_metric(text) == parsed


@pytest.mark.parametrize("text", ["coverage@10", "ndcg", "ndcg@0", "hr@ten", ""])
def test_what_is_no_metric_per_user_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="has no value per user; choose one of hr, ndcg"):
        parse_metric(text)


def test_nothing_is_decided_by_a_few_users() -> None:
    one, other = np.full(19, 1), np.full(19, 5)
    (found,) = compare_runs({"a": run(one), "b": run(other)})["comparisons"]
    assert found["outcome"] == "undecided" and found["p"] < 0.05
    (found,) = compare_runs({"a": run(np.full(20, 1)), "b": run(np.full(20, 5))})["comparisons"]
    assert found["outcome"] == "worse"
