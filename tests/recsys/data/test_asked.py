from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.asked import test_questions as questions_of_test
from recsys.data.asked import validation_questions
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.settings.read import parse_settings


def data_of(questions: int, items: int) -> Any:
    histories = Sequences(
        users=pl.Series("user_id", np.arange(questions)),
        items=np.zeros(questions, dtype=np.int32),
        offsets=np.arange(questions + 1, dtype=np.int64),
    )
    part = HeldOut(histories=histories, targets=np.zeros(questions, dtype=np.int32))
    return SimpleNamespace(split=SimpleNamespace(test=part, validation=part), vocabulary=SimpleNamespace(size=items))


@pytest.mark.parametrize(
    ("questions", "items", "test", "validation"),
    [(22_363, 12_101, 22_363, 22_363), (30_000, 1_000_000, 10_000, 2_000), (3_000, 10_000_000, 2_000, 2_000)],
)
def test_a_large_shop_asks_as_many_as_it_can_afford(questions: int, items: int, test: int, validation: int) -> None:
    settings = parse_settings({"name": "x", "interactions": {"source": "log.csv"}})
    data = data_of(questions, items)
    assert len(questions_of_test(settings, data)) == test
    assert len(validation_questions(settings, data)) == validation


def test_the_seed_draws_and_settings_say_how_many() -> None:
    given = {"name": "x", "interactions": {"source": "log.csv"}}
    data = data_of(500, 10)
    some = parse_settings({**given, "evaluate": {"users": 60}, "train": {"validation_users": 70}})
    drawn = questions_of_test(some, data).histories.users
    assert len(drawn) == 60 and drawn.is_sorted() and drawn.n_unique() == 60
    assert drawn.equals(questions_of_test(some, data).histories.users)
    assert not drawn.equals(questions_of_test(some.model_copy(update={"seed": 1}), data).histories.users)
    assert len(validation_questions(some, data)) == 70
