from __future__ import annotations

from dataclasses import replace
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.errors import RecsysError
from recsys.evaluation import ranking
from recsys.evaluation.metrics import MISS
from recsys.evaluation.ranking import Ranking, rank_targets, top_codes
from recsys.ranking.pairs import PairScores, ScoredPairs


def held_out(histories: list[list[int]], targets: list[int]) -> HeldOut:
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    users = pl.Series("user_id", range(len(targets)), dtype=pl.Int64)
    return HeldOut(
        histories=Sequences(users=users, items=items, offsets=offsets),
        targets=np.array(targets, dtype=np.int32),
    )


def rank(
    scores: list[list[float]] | np.ndarray,
    histories: list[list[int]],
    targets: list[int],
    *,
    banned: tuple[int, ...] = (),
    exclude_seen: bool = True,
    top_k: int = 3,
) -> Ranking:
    table = np.array(scores, dtype=np.float32)
    allowed = np.ones(table.shape[1], dtype=bool)
    allowed[[0, *banned]] = False
    return rank_targets(
        lambda start, stop: table[start:stop].copy(),
        held_out(histories, targets),
        allowed,
        exclude_seen=exclude_seen,
        top_k=top_k,
    )


def test_seen_items_leave_the_ranking() -> None:
    # codes   0    1    2    3    4
    scores = [[9.0, 4.0, 3.0, 2.0, 1.0]]
    found = rank(scores, [[1]], [3])
    assert found.ranks.tolist() == [2]
    assert found.top.tolist() == [[2, 3, 4]]
    found = rank(scores, [[1]], [3], exclude_seen=False)
    assert found.ranks.tolist() == [3]
    assert found.top.tolist() == [[1, 2, 3]]


def test_ties_go_to_the_lower_code_whatever_the_target() -> None:
    scores = [[0.0, 1.0, 1.0, 1.0, 2.0]] * 3
    found = rank(scores, [[], [], []], [1, 2, 3])
    assert found.ranks.tolist() == [2, 3, 4]
    assert found.best.tolist() == [2, 2, 2]
    assert found.worst.tolist() == [4, 4, 4]
    assert found.tied_share == 1.0
    assert found.top.tolist() == [[4, 1, 2]] * 3


def test_misses_are_beyond_every_cutoff() -> None:
    scores = [[0.0, 4.0, 3.0, 2.0, 1.0]] * 4
    # unknown, not allowed, already seen, fine
    found = rank(scores, [[2], [2], [2], [2]], [0, 4, 2, 3], banned=(4,))
    assert found.ranks.tolist() == [MISS, MISS, MISS, 2]
    assert found.misses == 3
    assert found.seen_targets == 1
    assert found.tied_share == 0.0


def test_a_seen_target_is_ranked_when_seen_items_stay() -> None:
    found = rank([[0.0, 4.0, 3.0]], [[2, 2, 1]], [2], exclude_seen=False)
    assert found.ranks.tolist() == [2]
    assert found.seen_targets == 0


def test_a_repeated_seen_target_is_one_miss() -> None:
    assert rank([[0.0, 4.0, 3.0]], [[2, 2, 2]], [2]).seen_targets == 1


def test_short_lists_are_padded() -> None:
    found = rank([[9.0, 1.0, 2.0], [9.0, 1.0, 2.0]], [[1], []], [2, 2], top_k=4)
    assert found.top.tolist() == [[2, 0, 0, 0], [2, 1, 0, 0]]


def test_scores_that_are_no_numbers_are_refused() -> None:
    # compared with a nan, nothing is higher: the target would be first
    with pytest.raises(RecsysError, match="not numbers"):
        rank([[0.0, np.nan, 1.0]], [[]], [1])


def test_read_only_scores_are_copied() -> None:
    counts = np.array([0.0, 3.0, 2.0, 1.0], dtype=np.float32)
    allowed = np.array([False, True, True, True])
    found = rank_targets(
        lambda start, stop: np.broadcast_to(counts, (stop - start, 4)),
        held_out([[1], [2]], [2, 1]),
        allowed,
        top_k=1,
    )
    assert found.ranks.tolist() == [1, 1]
    assert counts.tolist() == [0.0, 3.0, 2.0, 1.0]


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="score_block gave"):
        rank_targets(lambda start, stop: np.zeros((stop - start, 3)), held_out([[]], [1]), np.ones(4, dtype=bool))


def test_no_users() -> None:
    found = rank_targets(lambda start, stop: np.zeros((0, 3)), held_out([], []), np.ones(3, dtype=bool))
    assert len(found.ranks) == 0
    assert found.tied_share == 0.0


cases = st.integers(2, 9).flatmap(
    lambda size: st.lists(
        st.tuples(
            st.lists(st.integers(-2, 2), min_size=size + 1, max_size=size + 1),
            st.lists(st.integers(0, size), max_size=5),
            st.integers(0, size),
        ),
        min_size=1,
        max_size=7,
    )
)


@given(cases, st.integers(1, 12), st.booleans(), st.integers(1, 3), st.data())
@settings(max_examples=150, deadline=None)
def test_equals_sorting_everything(
    rows: list[tuple[list[int], list[int], int]],
    top_k: int,
    exclude_seen: bool,
    users_a_block: int,
    data: st.DataObject,
) -> None:
    scores = np.array([row[0] for row in rows], dtype=np.float32)
    histories, targets = [row[1] for row in rows], [row[2] for row in rows]
    banned = tuple(data.draw(st.lists(st.integers(1, scores.shape[1] - 1), max_size=3)))
    with mock.patch.object(ranking, "BLOCK_FLOATS", users_a_block * scores.shape[1]):
        found = rank(scores, histories, targets, banned=banned, exclude_seen=exclude_seen, top_k=top_k)
    for user, (values, history, target) in enumerate(rows):
        removed = {0, *banned, *(history if exclude_seen else ())}
        order = sorted((code for code in range(len(values)) if code not in removed), key=lambda c: (-values[c], c))
        assert found.ranks[user] == (order.index(target) + 1 if target in order else MISS)
        assert found.top[user].tolist() == (order + [0] * top_k)[:top_k]
        if target in order:
            assert found.best[user] == 1 + sum(values[code] > values[target] for code in order)
            assert found.worst[user] == sum(values[code] >= values[target] for code in order)


def test_top_codes_with_more_ties_than_places() -> None:
    scores = np.array([[-np.inf, 0, 0, 5, 0, 0], [-np.inf, 1, 2, 3, 4, 5]], dtype=np.float32)
    assert top_codes(scores, 3).tolist() == [[3, 1, 2], [5, 4, 3]]


def test_ties_share_the_middle_of_their_places_and_a_miss_stays_one() -> None:
    ranks, best, worst = np.array([1, 2, MISS]), np.array([1, 2, MISS]), np.array([1, 5, MISS])
    ranking = Ranking(ranks=ranks, best=best, worst=worst, top=np.zeros((3, 1)), seen_targets=0)
    assert ranking.middle.tolist() == [1.0, 3.5, MISS]


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 9), st.integers(1, 3), st.booleans())
@settings(deadline=None)
def test_pairs_rank_as_dense_rows_do(
    seed: int, exclude_seen: bool, top_k: int, users_a_block: int, lists: bool
) -> None:
    """Items outside the pairs are at minus infinity: ties, baskets, banned and seen items as in a dense row."""
    rng = np.random.default_rng(seed)
    users, width = int(rng.integers(1, 8)), 12
    scores = rng.integers(0, 4, (users, width)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.4] = -np.inf
    histories = [rng.integers(0, width, rng.integers(0, 4)).tolist() for _ in range(users)]
    asked = held_out(histories, rng.integers(0, width, users).tolist())
    others = held_out([rng.integers(0, width, rng.integers(0, 3)).tolist() for _ in range(users)], [0] * users)
    asked = replace(asked, others=others.histories)
    allowed = (rng.random(width) < 0.9) & (np.arange(width) > 0)

    def pairs(start: int, stop: int) -> ScoredPairs:
        rows, codes = np.nonzero(scores[start:stop] > -np.inf)
        return ScoredPairs(rows=rows, codes=codes, scores=scores[start:stop][rows, codes])

    taken: dict[str, list[np.ndarray]] = {"dense": [], "pairs": []}
    found = {}
    with (
        mock.patch.object(ranking, "BLOCK_FLOATS", users_a_block * width),
        mock.patch.object(ranking, "USERS", users_a_block),
    ):
        for name, block in (("dense", lambda a, b: scores[a:b].copy()), ("pairs", PairScores(pairs))):
            to = taken[name].append if lists else None
            found[name] = rank_targets(block, asked, allowed, exclude_seen=exclude_seen, top_k=top_k, lists=to)
    for name in ("ranks", "best", "worst", "top", "seen_targets"):
        np.testing.assert_array_equal(getattr(found["pairs"], name), getattr(found["dense"], name), err_msg=name)
    for mine, theirs in zip(taken["pairs"], taken["dense"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_pairs_that_are_no_numbers_are_refused() -> None:
    one = np.zeros(1, dtype=np.int64)
    bad = ScoredPairs(rows=one, codes=one + 1, scores=np.array([np.nan], dtype=np.float32))
    with pytest.raises(RecsysError, match="not numbers for users 0 to 1"):
        rank_targets(PairScores(lambda *_: bad), held_out([[]], [1]), np.arange(3) > 0)
