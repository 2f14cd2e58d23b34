"""The ladder below the model, by hand: who is filled, with what, in which order, and what the scores say."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sequences import Sequences
from recsys.serving.fallback import BY_POPULARITY, BY_TEXT, FEWEST, OWN, Fallback, Popular, Texts, named

V = 6
COUNTS = np.array([0, 1, 5, 3, 5, 0, 2], dtype=np.float32)  # by popularity: 2 and 4 (lower code first), 3, 6, 1, 5
ALL = np.arange(V + 1) > 0


def histories_of(*lists: list[int]) -> Sequences:
    items = np.array([item for items in lists for item in items], dtype=np.int32)
    return Sequences.nameless(items, np.concatenate([[0], np.cumsum([len(one) for one in lists])]))


def fill(
    fallback: Fallback, histories: Sequences, codes: list[list[int]], silent: list[bool], k: int, **more: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    given = np.array(codes, dtype=np.int32)
    scores = np.where(given > 0, 10.0 - np.arange(given.shape[1]), -np.inf).astype(np.float32)
    asked = {"exclude_seen": True, **more}
    return fallback.fill(histories, given, scores, np.array(silent), k=k, **asked)


def test_places_are_filled_by_what_sells_and_was_not_seen() -> None:
    fallback = Fallback(popular=Popular(counts=COUNTS[None]), allowed=ALL)
    histories = histories_of([2], [], [1, 3], [2, 3, 4, 5, 6])
    codes, scores, rungs = fill(fallback, histories, [[3, 1], [0, 0], [6, 0], [0, 0]], [False, True, False, True], k=4)
    assert codes.tolist() == [[3, 1, 4, 6], [2, 4, 3, 6], [6, 2, 4, 5], [1, 0, 0, 0]]
    assert rungs.tolist() == [[0, 0, 2, 2], [2, 2, 2, 2], [0, 2, 2, 2], [2, 0, 0, 0]]
    assert (np.diff(scores[:3], axis=1) < 0).all() and np.isfinite(scores[:3]).all()
    names = named(np.array([["vector", "vector"]]), rungs[:1])
    assert names.tolist() == [["vector", "vector", "fallback-popularity", "fallback-popularity"]]


def test_seen_items_may_come_again_where_they_are_not_excluded() -> None:
    fallback = Fallback(popular=Popular(counts=COUNTS[None]), allowed=ALL)
    codes, *_ = fill(fallback, histories_of([2, 4]), [[0]], [True], k=2, exclude_seen=False)
    assert codes.tolist() == [[2, 4]]


def test_only_allowed_items_and_never_more_than_there_are() -> None:
    allowed = np.array([False, True, False, True, False, False, False])
    fallback = Fallback(popular=Popular(counts=COUNTS[None]), allowed=allowed)
    codes, *_ = fill(fallback, histories_of([]), [[0]], [True], k=10**12)
    assert codes.tolist() == [[3, 1]]


def test_text_comes_before_popularity_where_the_model_is_silent() -> None:
    items = np.zeros((V + 1, 2), dtype=np.float32)
    items[5], items[1], items[3] = (1, 0), (0.6, 0.8), (-1, 0)
    texts = Texts(items=items, users={1: np.array([1, 0], dtype=np.float32)})
    fallback = Fallback(popular=Popular(counts=COUNTS[None]), allowed=ALL, texts=texts)
    codes, _, rungs = fill(fallback, histories_of([], [], [2]), [[0], [0], [6]], [True, True, False], k=3)
    assert codes.tolist() == [[2, 4, 3], [5, 1, 2], [6, 4, 3]]  # 3 points the other way
    assert rungs.tolist() == [[2, 2, 2], [BY_TEXT, BY_TEXT, BY_POPULARITY], [OWN, 2, 2]]


def test_a_segment_has_its_own_order_and_then_everybodys() -> None:
    lists = [[1]] * FEWEST + [[2, 3]] * (2 * FEWEST) + [[6]]
    countries = ["AT"] * FEWEST + ["DE"] * (2 * FEWEST) + ["FR"]
    histories = histories_of(*lists)
    histories = Sequences(
        users=histories.users,
        items=histories.items,
        offsets=histories.offsets,
        attributes=pl.DataFrame({"country": countries}),
    )
    popular = Popular.fit(histories, V, "country")
    assert popular.segments == ("AT", "DE")  # one Frenchman says nothing of France
    asked = Sequences(
        users=pl.Series("user_id", [0, 1, 2]),
        items=np.zeros(0, dtype=np.int32),
        offsets=np.zeros(4, dtype=np.int64),
        attributes=pl.DataFrame({"country": ["AT", "FR", None]}),
    )
    codes, *_ = fill(Fallback(popular=popular, allowed=ALL), asked, [[0], [0], [0]], [True] * 3, k=3)
    assert codes[0].tolist() == [1, 3, 2] and codes[1].tolist() == codes[2].tolist() == [3, 2, 1]
    again = Popular.from_tensors(popular.to_tensors(), popular.declaration())
    assert again.segments == popular.segments and np.array_equal(again.counts, popular.counts)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
def test_every_list_is_full_distinct_and_keeps_what_the_model_said(seed: int, k: int, exclude: bool) -> None:
    rng = np.random.default_rng(seed)
    size, users = 12, 5
    lists = [rng.permutation(size)[: rng.integers(0, 6)] + 1 for _ in range(users)]
    allowed = np.append(False, rng.random(size) < 0.8)
    given_k = int(rng.integers(1, k + 1))
    codes = np.zeros((users, given_k), dtype=np.int32)
    for row, own in enumerate(lists):
        free = np.setdiff1d(np.flatnonzero(allowed), own if exclude else [])
        some = rng.permutation(free)[: rng.integers(0, given_k + 1)]
        codes[row, : len(some)] = some
    fallback = Fallback(popular=Popular(counts=rng.random((1, size + 1)).astype(np.float32)), allowed=allowed)
    full, scores, rungs = fill(
        fallback,
        histories_of(*[own.tolist() for own in lists]),
        codes.tolist(),
        [False] * users,
        k,
        exclude_seen=exclude,
    )
    for row, own in enumerate(lists):
        free = np.setdiff1d(np.flatnonzero(allowed), own if exclude else [])
        got = full[row][full[row] > 0]
        assert len(got) == len(set(got.tolist())) == min(full.shape[1], len(free)) and set(got) <= set(free)
        had = int((codes[row] > 0).sum())
        assert full[row, :had].tolist() == codes[row, :had].tolist() and not rungs[row, :had].any()
        assert (np.diff(scores[row, : len(got)]) < 0).all()
