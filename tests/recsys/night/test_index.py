"""Which search a bundle is given: a former bundle's while that is one of about as many items, otherwise any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.vocabulary import Vocabulary
from recsys.night import index as module
from recsys.retrieval.choice import IndexReport
from recsys.retrieval.factory import EXACT
from recsys.retrieval.index import ItemIndex, build_index
from recsys.settings import Settings
from recsys.settings.read import parse_settings

ITEMS = 10
VECTORS = np.eye(ITEMS + 1, dtype=np.float32)
ALLOWED = np.arange(ITEMS + 1) > 0
REPORT = IndexReport(factory="", reason="Chosen.", wanted=0.98, k=5, users=1, items=ITEMS, width=ITEMS + 1)
SEARCH = build_index(VECTORS, ALLOWED)


def settings(**retrieve: Any) -> Settings:
    return parse_settings({"name": "x", "interactions": {"source": "log.csv"}, "retrieve": retrieve})


def former(factory: str, items: int = ITEMS, **retrieve: Any) -> Any:
    return SimpleNamespace(
        manifest={"index": {"factory": factory}},
        vocabulary=Vocabulary(pl.Series(range(items))),
        settings=settings(**retrieve),
        index=lambda: SEARCH,
    )


@pytest.mark.parametrize(
    ("before", "is_kept"),
    [
        (former("IVF4,SQ8"), True),
        (former(EXACT), True),  # the measured bundle's: this one is made of it
        (former("IVF4,SQ8", items=8), True),
        (former("IVF4,SQ8", items=7), False),  # the catalogue grew by three in ten
        (former("IVF4,SQ8", recall=0.9), False),
        (former("IVF4,SQ8", k=7), False),
        (None, False),
    ],
)
def test_a_search_is_kept_that_the_same_settings_chose_among_about_as_many_items(
    monkeypatch: pytest.MonkeyPatch, before: Any, is_kept: bool
) -> None:
    given: list[ItemIndex | None] = []

    def choose(*arguments: Any) -> tuple[ItemIndex, IndexReport]:
        given.append(arguments[-1])
        return SEARCH, REPORT

    monkeypatch.setattr(module, "choose_index", choose)
    dataset: Any = SimpleNamespace(split=SimpleNamespace(serving=[1]))
    model: Any = SimpleNamespace()
    module.chosen_index(settings(), dataset, model, VECTORS, ALLOWED, before)
    assert given == [SEARCH if is_kept else None]


def test_a_former_nights_exact_search_is_no_reason_for_another_one() -> None:
    assert module.former_search(former(EXACT)) is None
    assert module.former_search(None) is None
    approximate = former("IVF4,SQ8")
    assert module.former_search(approximate) is approximate
