from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest

from recsys.candidates.popularity import popularity
from recsys.candidates.transitions import transitions
from recsys.data.recency import recency_weights
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, leave_one_out
from recsys.evaluation.baselines import score_popularity, score_transitions
from recsys.evaluation.compare import EvaluationReport, Scorer, evaluate_scorers
from recsys.evaluation.lists import BANDS
from recsys.settings import EvaluateSettings

SIZE = 40
USERS = 300
CUTOFFS = (5, 20)


def logs() -> Sequences:
    """Everybody walks around a ring of items from a random start; codes 39 and 40 never train."""
    rng = np.random.default_rng(0)
    histories = []
    for _ in range(USERS):
        steps = rng.integers(1, 3, size=8)
        histories.append((rng.integers(38) + np.cumsum(steps)) % 38 + 1)
    histories[0][-1], histories[1][-1] = 39, 40
    return Sequences(
        users=pl.Series("user_id", [f"u{user:03}" for user in range(USERS)]),
        items=np.concatenate(histories).astype(np.int32),
        offsets=np.arange(USERS + 1, dtype=np.int64) * 8,
    )


def oracle(held_out: HeldOut, hits: np.ndarray) -> Scorer:
    """Knows the target of the users in `hits` and ranks nothing useful for the others."""

    def score(start: int, stop: int) -> np.ndarray:
        scores = np.zeros((stop - start, SIZE + 1), dtype=np.float32)
        rows = np.arange(stop - start)
        scores[rows, held_out.targets[start:stop]] = np.where(hits[start:stop], 1.0, -1.0)
        return scores

    return Scorer(score_block=score, allowed=np.arange(SIZE + 1) > 0)


def report(**options: object) -> tuple[EvaluationReport, HeldOut]:
    split = leave_one_out(logs())
    histories = split.test.histories
    counts = popularity(split.train.items, SIZE)
    table = transitions(split.train.items, split.train.offsets, SIZE)
    weights = recency_weights(histories.items, histories.offsets, SIZE)
    everything = np.arange(SIZE + 1) > 0
    arguments = {
        "held_out": split.test,
        "popularity": counts,
        "settings": EvaluateSettings(cutoffs=CUTOFFS),
        "seed": 7,
        "labels": [f"item {code}" for code in range(SIZE + 1)],
    } | options
    found = evaluate_scorers(
        oracle(split.test, np.arange(USERS) % 2 == 0),
        {
            "popularity": Scorer(score_block=score_popularity(counts), allowed=everything),
            "transitions": Scorer(score_block=score_transitions(weights, table), allowed=everything),
        },
        **arguments,  # type: ignore[arg-type]
    )
    return found, split.test


def test_an_oracle_of_half_the_users_scores_half() -> None:
    found, _ = report()
    assert found.metrics["test/hr_at_5"] == found.metrics["test/ndcg_at_20"] == 0.5
    assert set(found.baselines) == {"popularity", "transitions"}
    for metrics in found.baselines.values():
        assert metrics.keys() == found.metrics.keys()
    # a ring is what transitions see and popularity does not
    assert found.baselines["transitions"]["test/hr_at_5"] > 0.9
    assert found.baselines["popularity"]["test/hr_at_5"] < 0.4


def test_intervals_and_paired_differences_surround_their_means() -> None:
    found, _ = report()
    own = found.intervals["test/hr_at_10"]
    assert own["low"] < own["mean"] == 0.5 < own["high"]
    lead = found.differences["transitions"]["test/ndcg_at_10"]
    assert lead["low"] < lead["mean"] < lead["high"] < 0
    assert set(found.differences) == {"popularity", "transitions"}


def test_one_training_event_makes_a_target_known() -> None:
    targets = leave_one_out(logs()).test.targets
    counts = np.full(SIZE + 1, 9, dtype=np.float32)
    counts[39], counts[5] = 0, 1
    found, _ = report(popularity=counts)
    assert (targets == 5).any()
    assert found.report["cold_targets"] == (targets == 39).sum() == 1


def test_cold_targets_are_counted_and_measured() -> None:
    found, held_out = report()
    assert found.report["cold_targets"] == 2
    assert sorted(held_out.targets[:2]) == [39, 40]
    # the oracle knows user 0 and not user 1
    assert found.metrics["test/cold_hr_at_10"] == 0.5
    assert found.baselines["transitions"]["test/cold_hr_at_10"] == 0.0


def test_curves_pass_through_the_metrics() -> None:
    found, _ = report()
    place = found.curves["cutoffs"].index(20)
    assert found.curves["cutoffs"][0] == 1
    for name, metrics in [("model", found.metrics), *found.baselines.items()]:
        for metric in ("hr", "ndcg", "mrr"):
            assert found.curves[metric][name][place] == pytest.approx(metrics[f"test/{metric}_at_20"])


def test_popularity_shares_sum_to_one() -> None:
    found, _ = report()
    assert found.popularity["bands"] == list(BANDS)
    assert sum(found.popularity["consumed"]) == pytest.approx(1.0)
    for shares in found.popularity["recommended"].values():
        assert sum(shares) == pytest.approx(1.0)
    # popularity recommends its first 10 (and the next few, where those were seen) of 40
    assert found.popularity["recommended"]["popularity"][-1] < 0.05


def test_examples_name_titles_and_the_rank() -> None:
    found, held_out = report()
    assert len(found.examples) == 3
    for example in found.examples:
        user = held_out.histories.users.to_list().index(example["user_id"])
        assert example["history"] == [f"item {code}" for code in held_out.histories.history(user)]
        assert example["target"] == f"item {held_out.targets[user]}"
        assert (example["rank"] == 1) == (user % 2 == 0)
        assert not set(example["history"]) & set(example["recommended"])
        assert len(example["recommended"]) == 10


def test_the_same_seed_gives_the_same_report() -> None:
    first, second, third = report()[0], report()[0], report(seed=8)[0]
    assert first.intervals == second.intervals
    assert first.examples == second.examples
    assert first.intervals != third.intervals
    assert first.metrics == third.metrics


def test_the_report_is_json() -> None:
    found, _ = report()
    text = json.dumps({field.name: getattr(found, field.name) for field in fields(found)}, allow_nan=False)
    protocol = json.loads(text)["report"]["protocol"]
    assert protocol["exclude_seen"] is True
    assert (protocol["users"], protocol["items"]) == (USERS, SIZE)


def test_ties_stand_in_the_report() -> None:
    found, _ = report()
    # where the oracle knows nothing, every item but the target ties, below which the target lies alone
    assert found.report["ranking"]["model"]["tied_share"] == 0.0
    ties = found.report["ranking"]["popularity"]
    assert ties["ndcg_worst_ties"] <= found.baselines["popularity"]["test/ndcg_at_20"]
    assert ties["ndcg_worst_ties"] < ties["ndcg_best_ties"]


def test_measures_of_lists_stand_beside_the_metrics() -> None:
    found, _ = report()
    assert set(found.further) == {"model", "popularity", "transitions"}
    own = found.further["model"]
    assert own["test/recall_at_5"] == own["test/map_at_20"] == 0.5
    assert own["test/precision_at_5"] == pytest.approx(0.1)
    # popularity recommends what is popular
    by_popularity, by_walks = found.further["popularity"], found.further["transitions"]
    assert by_popularity["test/novelty_at_5"] < by_walks["test/novelty_at_5"]
    assert by_popularity["test/popularity_lift_at_5"] > by_walks["test/popularity_lift_at_5"]
    assert by_popularity["test/gini_at_5"] > by_walks["test/gini_at_5"]
    assert by_popularity["test/serendipity_at_5"] < by_walks["test/serendipity_at_5"]
    quality = found.report["ranking"]["model"]
    assert (quality["full_list_share"], quality["covered_share"], quality["duplicate_share"]) == (1.0, 1.0, 0.0)


def test_slices_and_values_per_user_add_up_to_the_metrics() -> None:
    """With attributes and text; two targets are cold."""
    frames: list[pl.DataFrame] = []
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{code}" for code in range(1, SIZE + 1)],
            "title": [""] * SIZE,
            "colour": ["red", "blue"] * (SIZE // 2),
        }
    )
    text = np.random.default_rng(0).standard_normal((SIZE + 1, 4)).astype(np.float32)
    found, held_out = report(catalogue=catalogue, text=text, users_to=frames.append)
    assert {"test/diversity_attributes_at_10", "test/diversity_text_at_10", "test/miscalibration_colour_at_10"} <= set(
        found.further["model"]
    )
    (users,) = frames
    assert users["user_id"].to_list() == held_out.histories.users.to_list()
    assert users["target"].to_list() == [f"i{code}" for code in held_out.targets]
    assert users["hit_at_10"].mean() == found.intervals["test/hr_at_10"]["mean"] == 0.5
    rows = {(row["dimension"], row["value"]): row for row in found.slices}
    assert rows["cold", "cold"]["n"] == 2 and rows["cold", "cold"]["small"]
    assert rows["cold", "cold"]["hr_at_10"] == found.metrics["test/cold_hr_at_10"]
    red = rows["item:colour", "red"]
    assert red["n"] == (held_out.targets % 2 == 1).sum()
    assert red["hr_at_10"] == pytest.approx(users.filter(pl.col("item:colour") == "red")["hit_at_10"].mean())


def test_several_targets_of_a_user_widen_the_intervals() -> None:
    """The same questions, asked of 300 users, or four times of 75 who answer alike."""
    split = leave_one_out(logs()).test
    alone, _ = report()
    users = pl.Series("user_id", [f"u{user // 4:03}" for user in range(USERS)])
    known = np.arange(USERS) // 4 % 2 == 0
    held_out = replace(split, histories=replace(split.histories, users=users))
    found = evaluate_scorers(
        oracle(held_out, known),
        {},
        held_out=held_out,
        popularity=np.append(np.ones(SIZE // 2 + 1), np.zeros(SIZE // 2)).astype(np.float32),
        settings=EvaluateSettings(cutoffs=CUTOFFS),
        seed=7,
        labels=[""] * (SIZE + 1),
    )
    own, wide = (one.intervals["test/hr_at_10"] for one in (alone, found))
    assert wide["high"] - wide["low"] == pytest.approx(2 * (own["high"] - own["low"]), rel=0.2)
    assert any(row["n"] > 100 for row in found.slices)
    assert all(row["small"] for row in found.slices)  # of 75 users


def test_progress_ends_at_the_total() -> None:
    heard: list[tuple[int, int | None, str]] = []
    report(progress=lambda done, total, text: heard.append((done, total, text)))
    assert heard[-1] == (3 * USERS, 3 * USERS, "transitions")
    assert [text for _, _, text in heard] == ["model", "popularity", "transitions"]


def test_nobody_to_ask() -> None:
    nobody = leave_one_out(logs().select(np.array([], dtype=np.int64))).test
    counts = np.ones(SIZE + 1, dtype=np.float32)
    scorer = Scorer(score_block=score_popularity(counts), allowed=np.arange(SIZE + 1) > 0)
    found = evaluate_scorers(
        scorer,
        {"popularity": scorer},
        held_out=nobody,
        popularity=counts,
        settings=EvaluateSettings(),
        seed=0,
        labels=[""] * (SIZE + 1),
    )
    assert found.metrics["test/hr_at_10"] == 0.0
    assert found.examples == []
    assert found.intervals == {}
