"""Baselines against small logs by hand, and against the slow way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.candidates.popularity import popularity
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.baselines import score_popularity
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.recent_popularity import DAY, _distinct_seen, ranks_by_counts, recent_popularity

ITEMS = 6


def sequences(histories: list[list[int]], days: list[list[float]] | None = None) -> Sequences:
    return Sequences(
        users=pl.Series("user_id", [f"u{i}" for i in range(len(histories))], dtype=pl.String),
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        times=None if days is None else np.array([round(t * DAY) for user in days for t in user], dtype=np.int64),
    )


def held_out(histories: list[list[int]], targets: list[int]) -> HeldOut:
    return HeldOut(histories=sequences(histories), targets=np.array(targets, dtype=np.int32))


def split(train: Sequences, validation: HeldOut, by: str | None = None) -> Split:
    return Split(train=train, validation=validation, test=validation, serving=train, validation_by=by)


def scores(name: str, train: list[list[int]], histories: list[list[int]], text: np.ndarray | None = None) -> np.ndarray:
    counted, asked = sequences(train), sequences(histories)
    found = baseline_scorers([name], counted, asked, popularity(counted.items, ITEMS), lambda: text)
    return found[name].score_block(0, len(asked))


questions = st.lists(
    st.tuples(st.lists(st.integers(0, ITEMS), max_size=5), st.integers(0, ITEMS)), min_size=1, max_size=6
)


@given(questions, st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS), st.booleans())
def test_ranks_by_counts_are_those_of_the_full_ranking(
    asked: list[tuple[list[int], int]], counts: list[int], exclude_seen: bool
) -> None:
    part = held_out([history for history, _ in asked], [target for _, target in asked])
    own = np.array([0, *counts], dtype=np.float32)
    allowed = np.arange(ITEMS + 1) > 0
    expected = rank_targets(score_popularity(own), part, allowed, exclude_seen=exclude_seen, top_k=1).ranks
    seen = _distinct_seen(part, ITEMS + 1) if exclude_seen else None
    np.testing.assert_array_equal(ranks_by_counts(own, part, seen), expected)


def test_the_window_is_the_one_that_ranks_validation_best() -> None:
    """Item 1 sold for years; what is asked for now is what sold in the last days."""
    train = sequences([[1, 1, 1, 1, 2, 3], [1, 1, 3]], [[0, 10, 20, 300, 398, 399], [30, 40, 400]])
    asked = held_out([[5], [6]], [3, 2])
    found = recent_popularity(split(train, asked, "time"), ITEMS, exclude_seen=True)
    assert found.window == "the newest 90 days of training"  # the longest of those that rank as well
    assert found.counts.tolist() == [0, 0, 1, 2, 0, 0, 0]
    old = recent_popularity(split(train, held_out([[5], [6]], [1, 1]), "time"), ITEMS, exclude_seen=True)
    assert old.window == "all training events"
    assert old.counts.tolist() == popularity(train.items, ITEMS).tolist()


def test_without_times_the_window_is_the_newest_events_of_every_user() -> None:
    train = sequences([[1, 1, 1, 2], [1, 1, 1, 3], [1, 1, 1, 3]])
    found = recent_popularity(split(train, held_out([[4]], [3])), ITEMS, exclude_seen=True)
    assert found.window == "the newest 1 training events of every user"
    assert found.counts.tolist() == [0, 0, 1, 2, 0, 0, 0]


def test_where_validation_is_of_all_times_the_newest_training_events_choose() -> None:
    """Validation would choose item 1, which sold long ago; only what came last tells what comes next."""
    days = [[float(n), 300.0 + n] for n in range(10)] + [[1.0]] * 3 + [[100.0, 399.5]]
    train = sequences([[1, 2]] * 10 + [[1]] * 3 + [[4, 2]], days)
    asked = held_out([[5]], [1])
    chosen = recent_popularity(split(train, asked, "last-event"), ITEMS, exclude_seen=True)
    assert chosen.window == "the newest 180 days of training"
    assert chosen.counts.tolist() == [0, 0, 11, 0, 0, 0, 0]
    assert recent_popularity(split(train, asked, "time"), ITEMS, exclude_seen=True).window == "all training events"


def test_nothing_that_is_asked_for_is_counted() -> None:
    train = sequences([[1, 2], [2, 3]], [[1, 2], [1, 2]])
    counts = [
        recent_popularity(split(train, replace(held_out([[4]], [target]), times=None), "last-event"), ITEMS,
                          exclude_seen=True).counts.tolist()
        for target in (1, 5)
    ]  # fmt: skip
    assert counts[0] == counts[1]


def test_item_neighbours_are_cosines_of_sets_of_users() -> None:
    found = scores("item-neighbours", [[1, 2], [2, 1], [2, 3]], [[1], [1, 3]])
    together, apart = 2 / np.sqrt(2 * 3), 1 / np.sqrt(1 * 3)
    np.testing.assert_allclose(found[0], [0, 0, together, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1], [0, 0, (together + apart) / 2, 0, 0, 0, 0], atol=1e-6)


def test_ease_is_the_closed_form() -> None:
    """B = I - P / diag(P), P the inverse of X'X + the penalty, of all of a history's items."""
    train = [[1, 2, 3], [1, 2], [2, 3, 4], [5, 1], [6, 2]]
    had = np.zeros((len(train), ITEMS))
    for row, history in enumerate(train):
        had[row, np.array(history) - 1] = 1
    gram = had.T @ had
    inverse = np.linalg.inv(gram + np.eye(ITEMS) * np.trace(gram) / ITEMS)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(scores("ease", train, [[1, 3]])[0, 1:], weights[0] + weights[2], atol=1e-5)


def test_text_is_a_cosine_and_items_without_text_are_not_ranked() -> None:
    vectors = np.zeros((ITEMS + 1, 2), dtype=np.float32)
    vectors[1], vectors[2], vectors[3] = (2, 0), (3, 3), (0, 1)
    train = sequences([[1, 2]])
    found = baseline_scorers(
        ["text"], train, sequences([[1]]), popularity(train.items, ITEMS), lambda: vectors
    )["text"]  # fmt: skip
    np.testing.assert_allclose(found.score_block(0, 1)[0, 1:4], [1, np.sqrt(0.5), 0], atol=1e-6)
    assert found.allowed.tolist() == [False, True, True, True, False, False, False]


@pytest.mark.parametrize("name", ["popularity", "recent-popularity", "transitions", "item-neighbours", "ease", "text"])
def test_every_name_gives_a_ranking_of_any_history(name: str) -> None:
    train = sequences([[1, 2, 3], [2, 3, 4]])
    asked = held_out([[], [0], [1, 2]], [1, 2, 3])
    vectors = np.eye(ITEMS + 1, 3, dtype=np.float32)
    whole = split(train, asked)
    found = baseline_scorers(
        [name],
        train,
        asked.histories,
        popularity(train.items, ITEMS),
        lambda: vectors,
        lambda: recent_popularity(whole, ITEMS, exclude_seen=True),
    )
    assert list(found) == [name]
    ranking = rank_targets(found[name].score_block, asked, found[name].allowed, top_k=3)
    assert (ranking.ranks > 0).all()
