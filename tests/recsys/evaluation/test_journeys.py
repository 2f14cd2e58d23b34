"""Parts of an evaluation that a page needs: bands of curves, shares of categories, users, and the worst failures."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.evaluation.bands import curve_band
from recsys.evaluation.journeys import failures, journeys
from recsys.evaluation.metrics import MISS
from recsys.evaluation.shares import category_shares

NONE_SEEN = np.zeros(9, dtype=bool)


def test_a_band_is_the_textbook_interval_of_a_mean() -> None:
    ranks = np.array([1, 3, 30, 2])
    hits = np.array([1.0, 1.0, 0.0, 1.0])
    half = stats.norm.ppf(0.975) * hits.std(ddof=1) / 2
    band = curve_band(ranks, "hr", [5, 100])
    assert band["low"][0] == pytest.approx(0.75 - half)
    assert band["high"][0] == 1.0  # 0.75 + half is beyond
    assert (band["low"][1], band["high"][1]) == (1.0, 1.0)


def test_rows_of_one_user_count_together() -> None:
    ranks = np.array([1, 1, 1, 99, 99, 99])
    alone, twice = curve_band(ranks, "hr", [5]), curve_band(ranks, "hr", [5], owner=np.array([7, 7, 7, 9, 9, 9]))
    assert twice["high"][0] - twice["low"][0] > alone["high"][0] - alone["low"][0]
    one = curve_band(ranks, "hr", [5], owner=np.zeros(6, dtype=np.int64))
    assert (one["low"], one["high"]) == ([0.5], [0.5])  # one user tells nothing of the spread
    assert curve_band(np.zeros(0, dtype=np.int64), "ndcg", [5]) == {"low": [0.0], "high": [0.0]}


def test_an_item_counts_in_equal_parts_for_its_values() -> None:
    genres = pl.DataFrame({"genre": [["a", "b"], ["a"], [], None], "year": [1, 2, 3, 4]})
    found = category_shares(genres, np.array([0, 2, 1, 1, 0]), np.array([0, 0, 3, 0, 1]))
    assert found == {
        "genre": [
            {"value": "a", "consumed": 0.5, "recommended": 0.75},
            {"value": None, "consumed": 0.25, "recommended": 0.25},
            {"value": "b", "consumed": 0.25, "recommended": 0.0},
        ]
    }


def test_the_values_beyond_the_shown_ones_are_one_share_and_all_sum_to_one() -> None:
    names = pl.DataFrame({"brand": [f"b{number:02}" for number in range(30)]})
    counts = np.append(0, np.arange(30, 0, -1))
    (rows,) = category_shares(names, counts, counts[::-1].copy()).values()
    assert rows[-1]["value"] == "(others)" and len(rows) == 13
    assert sum(row["consumed"] for row in rows) == pytest.approx(1.0)
    assert sum(row["recommended"] for row in rows) == pytest.approx(1.0)


def test_an_attribute_with_one_value_and_counts_of_nothing_are_no_news() -> None:
    assert category_shares(pl.DataFrame({"brand": ["x", "x"]}), np.ones(3), np.ones(3)) == {}
    found = category_shares(pl.DataFrame({"brand": ["x", "y"]}), np.zeros(3), np.zeros(3))
    assert {row["consumed"] for row in found["brand"]} == {0.0}


def test_the_worst_failure_is_the_popular_item_far_down() -> None:
    popularity = np.append(0.0, np.arange(100, 0, -1)).astype(np.float32)
    popularity[100] = 0.0  # never trained
    places = np.append(10**9, np.arange(1, 101))
    targets = np.array([1, 50, 3, 100, 0, 2, 40])
    ranks = np.array([30, 100, MISS, MISS, MISS, 4, 45])
    seen = np.zeros(7, dtype=bool)
    # rank / max(place, 10): user 2 has 101 / 10, user 0 30 / 10, user 1 100 / 50, user 6 45 / 40; user 5 is a hit,
    # users 3 and 4 could not be ranked well by anything
    assert failures(targets, ranks, places, popularity, seen).tolist() == [2, 0, 1, 6]
    seen[2] = True
    assert failures(targets, ranks, places, popularity, seen).tolist() == [0, 1, 6]


def test_a_user_is_described_by_the_list_of_the_ranker_itself() -> None:
    histories = Sequences(
        users=pl.Series("user_id", ["ann", "bob", "cid"]),
        items=np.array([1, 2, 3, 1, 4], dtype=np.int32),
        offsets=np.array([0, 2, 4, 5]),
    )
    held_out = HeldOut(histories=histories, targets=np.array([4, 1, 0], dtype=np.int32))
    scores = np.array([[0, 9, 8, 3, 5], [0, 9, 1, 7, 2], [0, 1, 2, 3, 4]], dtype=np.float32)
    asked: list[tuple[int, int]] = []

    def score_block(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return scores[start:stop].copy()

    found = journeys(
        score_block,
        np.array([False, True, True, True, True]),
        held_out=held_out,
        ranks=np.array([1, MISS, MISS]),
        popularity=np.array([0, 3, 2, 0, 5], dtype=np.float32),
        labels=["(unknown item)", "one", "two", "three", "four"],
        exclude_seen=True,
        count=3,
        seed=0,
    )
    assert found["users"][0] == {
        "user_id": "ann",
        "history": ["one", "two"],
        "history_length": 2,
        "recommended": ["four", "three"],
        "hit": 1,
        "target": "four",
        "rank": 1,
        "reason": None,
        "popularity_place": 1,
    }
    reasons = [one["reason"] for one in found["users"]]
    assert reasons[1:] == ["it is in the history, and seen items are not ranked", "the vocabulary does not know it"]
    assert found["failures"] == []
    assert asked == [(0, 1), (1, 2), (2, 3)]
