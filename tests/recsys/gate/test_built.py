"""Users, lists, look-ups and the index: what is sound passes, each planted defect fails its own check."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.data.sequences import Sequences
from recsys.gate import built, lists
from recsys.retrieval.factory import build_approximate
from recsys.retrieval.index import ItemIndex, build_index
from recsys.retrieval.shelf import most_rows
from recsys.retrieval.stored import set_parameters

RNG = np.random.default_rng(0)


def histories_of(users: int, items: int, had: int = 3) -> Sequences:
    return Sequences.nameless(
        RNG.integers(1, items + 1, users * had).astype(np.int32), np.arange(0, users * had + 1, had)
    )


def index_over(vectors: np.ndarray, inside: np.ndarray, probes: int = 8) -> ItemIndex:
    """An index of 8 cells whose file holds `inside`, beside the vectors that it should hold."""
    codes = np.arange(1, len(vectors))
    built = build_approximate(inside, codes, "IVF8,SQ8", lengthened=False)
    set_parameters(built.index, {"nprobe": probes})
    return ItemIndex(vectors=vectors, codes=codes, approximate=built)


def test_a_sound_search_finds_everything_and_one_of_other_vectors_does_not() -> None:
    vectors = np.vstack([np.zeros((1, 16)), RNG.standard_normal((300, 16))]).astype(np.float32)
    queries = RNG.standard_normal((50, 16)).astype(np.float32)
    had = histories_of(50, 300)
    for exclude_seen in (True, False):
        exact = built.check_index(build_index(vectors, np.arange(301) > 0), queries, had, 100, 0.95, exclude_seen)
        assert exact.value == 1.0 and "(exact) finds 100.0% of the 100 best items of 50 users" in exact.sentence
    assert built.check_index(index_over(vectors, vectors), queries, had, 10, 0.95).value == 1.0
    assert built.check_index(index_over(vectors, vectors), queries, had, 500, 0.95).value == 1.0  # longer than all
    stale = index_over(vectors, vectors[np.concatenate([[0], 1 + RNG.permutation(300)])], probes=1)
    check = built.check_index(stale, queries, had, 10, 0.95)
    assert check.failed and check.value is not None and check.value < 0.5
    assert "The search (IVF8,SQ8) finds" in check.sentence


def test_what_is_measured_is_the_shelf() -> None:
    """The best items are no longer sold: lists of the others are whole."""
    vectors = np.vstack([np.zeros((1, 16)), RNG.standard_normal((300, 16))]).astype(np.float32)
    items = build_index(vectors, np.arange(301) > 0).only(np.arange(301) % 2 > 0)
    assert built.index_recall(items, RNG.standard_normal((40, 16)).astype(np.float32), histories_of(40, 300), 10) == 1.0


def test_equal_scores_may_come_in_any_order() -> None:
    vectors = np.repeat(RNG.standard_normal((4, 8)), 25, axis=0).astype(np.float32)
    items = index_over(np.vstack([np.zeros((1, 8), np.float32), vectors]), np.vstack([np.zeros((1, 8)), vectors]))
    assert built.index_recall(items, RNG.standard_normal((20, 8)).astype(np.float32), histories_of(20, 100), 10) == 1.0


def test_an_index_without_queries_is_not_checked() -> None:
    vectors = RNG.standard_normal((20, 4)).astype(np.float32)
    check = built.check_index(
        build_index(vectors, np.arange(20) > 0), np.zeros((5, 4), np.float32), histories_of(5, 19), 10, 0.95
    )
    assert (check.status, check.sentence) == ("skipped", "No user has a query vector.")


def test_an_index_with_nothing_left_to_find_is_not_checked() -> None:
    """Users who have had all items of the shelf."""
    vectors = RNG.standard_normal((4, 4)).astype(np.float32)
    had = Sequences.nameless(np.array([1, 2, 3, 3, 1, 2], dtype=np.int32), np.array([0, 3, 6]))
    check = built.check_index(build_index(vectors, np.arange(4) > 0), np.ones((2, 4), np.float32), had, 10, 0.95)
    assert (check.status, check.sentence) == ("skipped", "These users have had every item that may be recommended.")
    again = (build_index(vectors, np.arange(4) > 0), np.ones((2, 4), np.float32), had, 10, 0.95, False)
    assert built.check_index(*again).value == 1.0


def test_half_the_users_missing() -> None:
    assert built.check_users(1000, 1000, 0.5).status == "passed"
    assert built.check_users(499, 1000, 0.5).failed
    missing = built.check_former_users(500, 1000, 0.8)
    assert missing.failed
    assert missing.sentence == "500 of 1,000 users of the table served now are missing from the new one."
    assert built.check_former_users(990, 1000, 0.8).status == "passed"


def test_full_lists_are_those_that_the_shelf_allows() -> None:
    histories = Sequences.nameless(np.array([1, 1, 2, 3, 4, 5, 5], dtype=np.int32), np.array([0, 3, 7]))
    allowed = np.array([False, True, True, True, False, False])
    # the first has seen 1 and 2 of the shelf's 3, the second 3
    assert most_rows(histories, allowed, 10, exclude_seen=True).tolist() == [1, 2]
    assert most_rows(histories, allowed, 1, exclude_seen=True).tolist() == [1, 1]
    assert most_rows(histories, allowed, 10, exclude_seen=False).tolist() == [3, 3]
    assert built.check_full_lists(3, 3, 0.9).status == "passed"
    assert built.check_full_lists(1, 3, 0.9).failed
    assert built.check_full_lists(0, 0, 0.9).status == "skipped"


def personal_lists(users: int, items: int) -> np.ndarray:
    return np.stack([RNG.permutation(items)[:10] + 1 for _ in range(users)])


def test_popularity_in_disguise_fails_and_personal_lists_pass() -> None:
    popularity = np.concatenate([[0], np.arange(500, 0, -1)]).astype(np.float32)
    histories = Sequences.nameless(np.tile([1, 2, 499], 200).astype(np.int32), np.arange(0, 601, 3))
    popular = lists.popular_lists(popularity, np.arange(501) > 0, histories, exclude_seen=True)
    assert popular[0].tolist() == list(range(3, 13))  # without what they have seen
    disguise = built.check_popularity(popular, popular, 500, 0.8)
    assert disguise.failed and disguise.value == 1.0
    assert disguise.sentence == "100% of the first 10 of the lists are the most popular items."
    assert built.check_popularity(personal_lists(200, 500), popular, 500, 0.8).status == "passed"
    assert built.check_popularity(popular, popular, 50, 0.8).status == "skipped"  # a small shelf


def test_one_list_for_everybody_fails() -> None:
    same = np.tile(RNG.permutation(500)[:10] + 1, (200, 1))
    assert built.check_same_lists(same, 500, 0.8).failed
    assert built.check_same_lists(personal_lists(200, 500), 500, 0.8).status == "passed"
    assert built.check_same_lists(same[:9], 500, 0.8).status == "skipped"


def test_values_that_training_has_not_seen() -> None:
    trained = pl.DataFrame({"category": ["a", "b", "a"], "tags": [["x"], ["y", "x"], None], "brand": ["p", "q", "r"]})
    asked = pl.DataFrame({"category": ["A", "B", "a", None], "tags": [["x"], ["z"], ["x"], []], "brand": ["s"] * 4})
    shares = lists.unseen_shares(trained, asked, ["category", "tags", "brand"], most=2)
    assert shares == {"category": pytest.approx(2 / 3), "tags": pytest.approx(1 / 3)}  # brands are too many
    check = built.check_unseen(shares, 0.5)
    assert check.failed and check.sentence == "Training has not seen 67% of the values of category."
    assert built.check_unseen({"category": 0.0}, 0.5).sentence == "Training has seen all values of category."
    assert built.check_unseen({}, 0.5).status == "skipped"
