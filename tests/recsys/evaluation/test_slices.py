from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.evaluation.metrics import MISS
from recsys.evaluation.slices import DAY, MOST_VALUES, OTHERS, SMALL, measure_slices, slice_keys


def held_out(
    histories: list[list[int]],
    targets: list[int],
    attributes: pl.DataFrame | None = None,
    times: tuple[list[int], list[int]] | None = None,
) -> HeldOut:
    """`times`: of the events, of the targets."""
    return HeldOut(
        histories=Sequences(
            users=pl.Series("user_id", [f"u{user}" for user in range(len(targets))]),
            items=np.array(list(itertools.chain(*histories)), dtype=np.int32),
            offsets=np.cumsum([0, *map(len, histories)]),
            times=None if times is None else np.array(times[0], dtype=np.int64),
            attributes=attributes,
        ),
        targets=np.array(targets, dtype=np.int32),
        times=None if times is None else np.array(times[1], dtype=np.int64),
    )


POPULARITY = np.array([0, *range(20, 0, -1), 0], dtype=np.float32)  # codes 1 to 20 trained, 21 cold


def test_history_target_and_repetition() -> None:
    keys = slice_keys(held_out([[1], [1, 2, 3], [4] * 9, []], [2, 3, 21, 0]), POPULARITY)
    assert keys["history_length"].to_list() == ["1", "2-3", "8-15", "0"]
    assert keys["cold"].to_list() == ["trained", "trained", "cold", "unknown"]
    assert keys["repeated"].to_list() == ["first time", "repeated", "first time", "first time"]


def test_popularity_by_tenths_of_the_trained_items() -> None:
    keys = slice_keys(held_out([[1]] * 6, [1, 2, 3, 20, 21, 0]), POPULARITY)
    assert keys["target_popularity"].to_list() == ["1 (most popular)", "1 (most popular)", "2", "10", None, None]


def test_ties_within_a_day() -> None:
    noon = DAY // 2
    events = ([noon, DAY, noon, noon], [noon, DAY + 5, DAY + noon])
    keys = slice_keys(held_out([[1], [1], [1, 2]], [3, 3, 3], times=events), POPULARITY)
    assert keys["same_day"].to_list() == ["same time", "same day", "later day"]
    assert "same_day" not in slice_keys(held_out([[1], [2, 3]], [3, 3]), POPULARITY).columns


def test_attributes_of_user_and_target() -> None:
    users = pl.DataFrame({"sex": ["F", None, "M"], "age": [18.0, 30.0, None], "visits": [float("nan"), 1.0, np.inf]})
    items = pl.DataFrame(
        {"genres": [["a", "b"]] + [["a"]] + [[]] * 19, "price": [1.0] * 21},
        schema={"genres": pl.List(pl.String), "price": pl.Float64},
    )
    keys = slice_keys(held_out([[1], [2], [3]], [1, 2, 3], users), POPULARITY, items)
    assert keys["user:sex"].to_list() == ["F", "(none)", "M"]
    assert keys["user:age"].to_list() == ["1 (up to 21)", "4 (up to 30)", "(none)"]
    assert keys["user:visits"].to_list() == ["(none)", "1 (up to 1)", "(none)"]
    assert [sorted(values) for values in keys["item:genres"].to_list()] == [["a", "b"], ["a"], ["(none)"]]
    assert "item:price" not in keys.columns  # one value divides nobody


def test_rare_values_are_one_slice() -> None:
    users = pl.DataFrame({"city": [f"c{n:02}" for n in range(MOST_VALUES)] * 2 + ["rare", "rarer"]})
    keys = slice_keys(held_out([[1]] * len(users), [2] * len(users), users), POPULARITY)
    assert set(keys["user:city"].tail(2)) == {OTHERS}
    assert keys["user:city"].n_unique() == MOST_VALUES + 1


def test_figures_are_those_of_the_slice_alone() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.choice([1, 3, 40, MISS], 300)
    groups = pl.Series("group", ["big"] * 200 + ["little"] * 99 + [None])
    lists = pl.Series("genres", [["x", "y"]] * 150 + [["y"]] * 150)
    rows = measure_slices(pl.DataFrame([groups, lists]), ranks, 10, rng)
    assert [(row["dimension"], row["value"], row["n"], row["small"]) for row in rows] == [
        ("group", "big", 200, False),
        ("group", "little", 99, True),
        ("genres", "y", 300, False),
        ("genres", "x", 150, False),
    ]
    assert SMALL == 100
    assert rows[0]["hr_at_10"] == pytest.approx((ranks[:200] <= 10).mean())
    assert rows[3]["ndcg_at_10"] == pytest.approx(((ranks[:150] == 1) + (ranks[:150] == 3) / 2).mean())
    for row in rows:
        assert row["hr_at_10_low"] < row["hr_at_10"] < row["hr_at_10_high"]
        assert row["ndcg_at_10_low"] < row["ndcg_at_10"] < row["ndcg_at_10_high"]


@pytest.mark.parametrize(("rank", "mean"), [(MISS, 0.0), (1, 1.0)])
def test_a_slice_of_misses_or_of_hits_alone_has_an_interval(rank: int, mean: float) -> None:
    (row,) = measure_slices(pl.DataFrame({"cold": ["cold"] * 6}), np.full(6, rank), 10, np.random.default_rng(0))
    possible = 0.025 ** (1 / 6)  # six misses in a row are as likely as that if the rate is 1 - 0.54
    ends = (0.0, 1 - possible) if mean == 0.0 else (possible, 1.0)
    for metric in ("hr_at_10", "ndcg_at_10"):
        assert row[metric] == mean
        assert (row[f"{metric}_low"], row[f"{metric}_high"]) == pytest.approx(ends)


def test_slices_that_begin_with_numbers_ascend() -> None:
    keys = pl.DataFrame({"history_length": ["16-31", "2-3", "16-31", "1", "128-255"]})
    rows = measure_slices(keys, np.ones(5, dtype=np.int64), 10, np.random.default_rng(0))
    assert [row["value"] for row in rows] == ["1", "2-3", "16-31", "128-255"]


def test_nobody_is_in_no_slice() -> None:
    keys = slice_keys(held_out([], []), POPULARITY)
    assert keys.width == 0
    assert measure_slices(keys, np.zeros(0, dtype=np.int64), 10, np.random.default_rng(0)) == []
