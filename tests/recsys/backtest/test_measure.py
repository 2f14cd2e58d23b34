"""Questions, scores and differences of hand-worked nights."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from recsys.backtest.differences import OWNER, column, differences, outcome, overall, verdict
from recsys.backtest.measure import measure
from recsys.backtest.questions import KNOWN, ask, standing
from recsys.backtest.score import means, reach, values, with_fallback
from recsys.columns import EVENT, ITEM_ID, POSITION, RANK, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.data.vocabulary import Vocabulary
from recsys.settings import FilterSettings


def pairs(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={USER_ID: pl.String, ITEM_ID: pl.String}, orient="row")


def lists(**given: str) -> pl.DataFrame:
    """Lists of users, an item a letter."""
    rows = [(user, rank, item) for user, items in given.items() for rank, item in enumerate(items, 1)]
    return pl.DataFrame(rows, schema={USER_ID: pl.String, RANK: pl.Int32, ITEM_ID: pl.String}, orient="row")


# ann had a and b, bob had a, col comes for the first time; z is new, and dan comes only for what he had
BEFORE = pairs(("ann", "a"), ("ann", "b"), ("bob", "a"), ("dan", "c"), ("dan", "c"))
WINDOW = pairs(("ann", "c"), ("ann", "c"), ("ann", "a"), ("ann", "z"), ("bob", "b"), ("col", "a"), ("dan", "c"))


def test_questions_without_repeats_are_told_to_the_last_count() -> None:
    questions = ask(BEFORE, WINDOW, repeats=False)
    assert questions.targets.rows() == [
        ("ann", "c", True, False),
        ("ann", "z", True, True),
        ("bob", "b", True, False),
        ("col", "a", False, False),
    ]
    assert questions.counts == {
        "events": 7,
        "users": 4,
        "asked": 3,
        "new_users": 1,
        "targets": 4,
        "new_items": 1,
        "repeats": 2,  # ann's a and dan's c
        "only_repeats": 1,  # dan
    }


def test_repeats_are_targets_where_what_was_had_may_be_recommended() -> None:
    questions = ask(BEFORE, WINDOW, repeats=True)
    assert questions.targets.select(USER_ID, ITEM_ID).rows() == [
        ("ann", "a"), ("ann", "c"), ("ann", "z"), ("bob", "b"), ("col", "a"), ("dan", "c")
    ]  # fmt: skip
    assert (questions.counts["repeats"], questions.counts["only_repeats"]) == (2, 0)


def test_scores_of_lists_by_hand() -> None:
    questions = ask(BEFORE, WINDOW, repeats=False)
    scored = values(questions, lists(ann="dc", bob="b"), [1, 2])
    rows = {row[USER_ID]: row for row in scored.iter_rows(named=True)}
    # ann: targets c and z, c at rank 2
    assert (rows["ann"]["hr_at_1"], rows["ann"]["hr_at_2"], rows["ann"]["recall_at_2"]) == (0, 1, 0.5)
    assert rows["ann"]["map_at_2"] == pytest.approx(0.25)  # precision 1/2 at rank 2, of two targets
    assert rows["ann"]["ndcg_at_2"] == pytest.approx(0.6309297 / 1.6309297)
    assert rows["bob"]["ndcg_at_1"] == 1
    assert rows["col"]["hr_at_2"] == 0
    assert means(scored)["known"]["hr_at_2"] == 1
    assert means(scored)["new"]["hr_at_2"] == 0
    assert means(scored)["all"]["hr_at_2"] == pytest.approx(2 / 3)


def test_popularity_serves_who_has_no_list_and_reach_does_not_count_it() -> None:
    questions = ask(BEFORE, WINDOW, repeats=False)
    own = lists(ann="dz", dan="a")  # dan is not asked
    popular = lists(ann="aa", bob="ba", col="ab")
    served = with_fallback(own.filter(pl.col(USER_ID) != "dan"), popular)
    assert served.sort(USER_ID, RANK)[ITEM_ID].to_list() == ["d", "z", "b", "a", "a", "b"]
    seen = BEFORE[ITEM_ID].unique()
    assert reach(questions, own, 10, seen, 2) == {
        "users_with_list": 1,
        "coverage_users": pytest.approx(1 / 3),
        "coverage_items": pytest.approx(2 / 10),
        "new_items": pytest.approx(1.0),  # d and z have no event before
    }


def test_a_night_s_figures_pair_the_served_table_with_everything_else() -> None:
    questions = ask(BEFORE, WINDOW, repeats=False)
    figures, rows = measure(
        questions,
        BEFORE,
        {"served": lists(ann="cz", bob="b"), "popularity": lists(ann="cd", bob="cd", col="ac")},
        items=4,
        users=Vocabulary(pl.Series(["ann", "bob", "col", "dan"])),
        cutoffs=(2,),
        shown=2,
        reference="served",
        seed=0,
    )
    assert rows[OWNER].to_list() == [1, 2, 3]
    assert rows[KNOWN].to_list() == [True, True, False]
    assert rows[column("served", "hr_at_2")].to_list() == [1, 1, 1]  # popularity serves col
    test = figures["differences"]["popularity"]["ndcg_at_2"]
    assert test["n"] == 2  # col does not count
    assert test["mean"] == pytest.approx((1 + 1) / 2 - 0.5 * (1 / 1.6309297))
    assert figures["known"] == {"events": 5, "users": 3, "items": 3}


def test_over_nights_a_user_counts_with_all_nights_and_a_ranker_only_where_it_served() -> None:
    nights = pl.DataFrame(
        {
            OWNER: [1, 2, 1, 2],
            KNOWN: [True, True, True, True],
            column("served", "ndcg_at_10"): [1.0, 0.0, 1.0, 0.5],
            column("former", "ndcg_at_10"): [None, None, 0.5, 0.5],
        }
    )
    found = overall(nights, ["ndcg_at_10"])
    assert found["served"]["ndcg_at_10"]["mean"] == pytest.approx(0.625)
    assert found["former"]["ndcg_at_10"]["mean"] == pytest.approx(0.5)
    test = differences(nights, "served", ["ndcg_at_10"])["former"]["ndcg_at_10"]
    assert (test["n"], test["mean"], test["outcome"]) == (2, pytest.approx(0.25), "undecided")


def test_the_verdict_names_yesterday_and_the_best_baseline() -> None:
    def mean(value: float) -> dict[str, dict[str, float]]:
        return {"ndcg_at_10": {"mean": value}}

    def test(value: float, low: float, high: float) -> dict[str, dict[str, object]]:
        return {"ndcg_at_10": {"mean": value, "low": low, "high": high, "outcome": outcome(low, high)}}

    sentence = verdict(
        {"served": mean(0.3), "former": mean(0.29), "popularity": mean(0.1), "transitions": mean(0.35)},
        {
            "former": test(0.01, 0.005, 0.015),
            "popularity": test(0.2, 0.1, 0.3),
            "transitions": test(-0.05, -0.08, -0.02),
        },
        reference="served",
        former="former",
        baselines=["popularity", "transitions"],
        metric="ndcg_at_10",
        nights=2,
        questions=9,
    )
    assert sentence == (
        "Over 2 nights and 9 questions of users with a history, what was served reaches NDCG@10 0.3000; it is better "
        "than the former night's table served again by 0.0100 [0.0050, 0.0150]; it is worse than the best baseline "
        "(transitions) by 0.0500 [0.0200, 0.0800]."
    )


def test_what_was_taken_back_by_then_did_not_happen() -> None:
    def log(*rows: tuple[str, str, int, str]) -> pl.LazyFrame:
        frame = pl.DataFrame(rows, schema=[USER_ID, ITEM_ID, "day", EVENT], orient="row")
        moments = [datetime(2026, 1, day, tzinfo=UTC) for day in frame["day"]]
        return frame.lazy().with_columns(
            pl.Series(TIMESTAMP, moments, dtype=pl.Datetime("us", "UTC")),
            pl.lit(None, pl.Float64).alias(WEIGHT),
            pl.int_range(pl.len(), dtype=pl.Int64).alias(POSITION),
        )

    events = log(("ann", "a", 1, "buy"), ("ann", "b", 2, "look"), ("ann", "a", 3, WITHDRAWAL))
    moment = {day: round(datetime(2026, 1, day, tzinfo=UTC).timestamp() * 1_000_000) for day in (3, 4)}
    bought = FilterSettings(events=("buy",), min_user_interactions=5)
    assert standing(events, bought, moment[3])[ITEM_ID].to_list() == ["a"]
    assert standing(events, bought, moment[4])[ITEM_ID].to_list() == []
