from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import consumed
from recsys.data.consumed import Consumed
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut

histories = st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=8)


def of(lists: list[list[int]], targets: list[int] | None = None) -> Consumed:
    items = np.array([item for one in lists for item in one], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Consumed.of(items, offsets, None if targets is None else np.array(targets, dtype=np.int32))


@given(histories, st.randoms())
def test_order_does_not_matter_and_empty_histories_do_not_count(lists: list[list[int]], random: object) -> None:
    shuffled = [*lists, []]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of(shuffled) == of(lists)
    assert of(lists).events == sum(map(len, lists)) and of(lists).histories == sum(map(bool, lists))


@given(histories, histories)
def test_other_histories_have_another_digest(one: list[list[int]], other: list[list[int]]) -> None:
    kept = [sorted(filter(None, lists)) for lists in (one, other)]
    assert (of(one) == of(other)) == (kept[0] == kept[1])


@given(histories, st.integers(1, 5))
def test_parts_do_not_change_the_digest(lists: list[list[int]], at_once: int) -> None:
    whole = of(lists)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumed, "AT_ONCE", at_once)
        assert of(lists) == whole


def test_a_question_is_its_history_and_its_target() -> None:
    asked = of([[1, 2], []], [3, 4])
    assert asked.histories == 2 and asked.events == 2  # one begins with nothing
    assert asked == of([[], [1, 2]], [4, 3])
    assert len({found.digest for found in (asked, of([[1, 2], []], [4, 3]), of([[1, 2]], [3]), of([[1, 2], []]))}) == 4
    of_users = Sequences(users=pl.Series([7]), items=np.array([1, 2], dtype=np.int32), offsets=np.array([0, 2]))
    assert Consumed.asked(HeldOut(histories=of_users, targets=np.array([3], dtype=np.int32))) == of([[1, 2]], [3])


def test_it_survives_a_manifest() -> None:
    found = of([[1, 2, 3]] * 500)
    assert Consumed.from_dict(found.to_dict()) == found
    assert str(found) == "1,500 events of 500 histories"
