"""Figures decide only beyond chance: equal rankers stay undecided, worse ones are found, users are resampled whole."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from recsys.evaluation.metrics import MISS, Metric
from recsys.evaluation.runs import FEW
from recsys.gate.figures import BASELINE_USERS, best, leads, split_metric, undecided_for_few
from recsys.settings import GateSettings

SETTINGS = {"confidence": 0.95, "tolerance": 0.0, "seed": 0}


def noisy_ranks(rng: np.random.Generator, hardness: np.ndarray, noise: float) -> np.ndarray:
    """Ranks of one training of a model: users differ in how hard they are, trainings in noise of their own."""
    ranks = np.exp(hardness + noise * rng.standard_normal(len(hardness))).astype(np.int64) + 1
    ranks[ranks > 400] = MISS
    return ranks


def outcome(own: np.ndarray, other: np.ndarray, owner: np.ndarray | None = None, **changes: float) -> str:
    owner = np.arange(len(own)) if owner is None else owner
    settings = SETTINGS | changes
    return leads(own, {"x": other}, ["ndcg@10"], owner=owner, **settings)["x"][0].outcome  # type: ignore[arg-type]


@pytest.mark.parametrize("users", [60, 400])
def test_equal_models_trained_again_are_called_different_at_most_once_in_twenty(users: int) -> None:
    rng = np.random.default_rng(users)
    hardness = 3 + 1.5 * rng.standard_normal(users)
    first = noisy_ranks(rng, hardness, 0.7)
    again = [noisy_ranks(rng, hardness, 0.7) for _ in range(20)]
    called = [outcome(one, other) for one, other in zip([first, *again[:-1]], again, strict=True)]
    assert sum(each != "undecided" for each in called) <= 1


def test_one_of_many_baselines_is_not_called_better_by_chance() -> None:
    """All comparisons of a night are one family."""
    rng = np.random.default_rng(5)
    called = 0
    for _ in range(10):
        hardness = 3 + 1.5 * rng.standard_normal(100)
        others = {f"b{n}": noisy_ranks(rng, hardness, 0.7) for n in range(4)}
        own = noisy_ranks(rng, hardness, 0.7)
        found = leads(own, others, ["ndcg@10"], owner=np.arange(100), **SETTINGS)  # type: ignore[arg-type]
        called += any(lead.outcome != "undecided" for of in found.values() for lead in of)
    assert called <= 1


def test_a_worse_model_is_found_and_a_better_one_named() -> None:
    rng = np.random.default_rng(0)
    hardness = 3 + 1.5 * rng.standard_normal(500)
    sound, hurt = noisy_ranks(rng, hardness, 0.5), noisy_ranks(rng, hardness + 0.8, 0.5)
    assert outcome(hurt, sound) == "worse"
    assert outcome(sound, hurt) == "better"
    assert outcome(hurt, sound, tolerance=0.5) == "undecided"  # so much is accepted


def test_below_counting_with_few_validation_users_is_found_and_below_twenty_users_undecided() -> None:
    own, counting = np.full(60, 40), np.where(np.arange(60) % 3 == 0, 1, 40)
    assert outcome(own[:45], counting[:45]) == "worse"
    worse = leads(own[:45], {"x": counting[:45]}, ["ndcg@10"], owner=np.arange(45), **SETTINGS)  # type: ignore[arg-type]
    assert undecided_for_few(worse, BASELINE_USERS)["x"][0].outcome == "worse"
    assert undecided_for_few(worse, 45)["x"][0].outcome == "undecided"  # a first small shop gets its table
    assert outcome(own[: FEW - 1], counting[: FEW - 1]) == "undecided"


def test_questions_of_one_user_count_together() -> None:
    """Ten questions of each of 30 users, all alike: as many as 30 users say, and not as 300."""
    rng = np.random.default_rng(3)
    by_user = np.where(rng.random(30) < 0.6, 1, 30), np.where(rng.random(30) < 0.35, 1, 30)
    own, other = (np.repeat(ranks, 10) for ranks in by_user)
    apart = leads(own, {"x": other}, ["ndcg@10"], owner=np.arange(300), **SETTINGS)["x"][0]  # type: ignore[arg-type]
    whole = leads(own, {"x": other}, ["ndcg@10"], owner=np.repeat(np.arange(30), 10), **SETTINGS)["x"][0]  # type: ignore[arg-type]
    assert whole.difference == pytest.approx(apart.difference)
    assert whole.margin > 2.5 * apart.margin


def test_the_same_ranks_differ_by_nothing() -> None:
    ranks = np.arange(1, 101)
    lead = leads(ranks, {"x": ranks}, ["mrr@10"], owner=ranks, **SETTINGS)["x"][0]  # type: ignore[arg-type]
    assert (lead.difference, lead.low, lead.high, lead.outcome) == (0.0, 0.0, 0.0, "undecided")


def test_the_best_baseline_is_the_one_with_the_highest_value() -> None:
    ranks = np.full(50, 5)
    found = leads(
        ranks,
        {"low": np.full(50, 9), "high": np.full(50, 2)},
        ["ndcg@10"],
        owner=np.arange(50),
        **SETTINGS,  # type: ignore[arg-type]
    )
    assert best(found) == "high"
    assert best({}) is None


def test_every_metric_can_decide() -> None:
    for metric in get_args(Metric):
        (chosen,) = GateSettings(metrics=(f"{metric}@5",)).metrics
        assert split_metric(chosen) == (metric, 5)
