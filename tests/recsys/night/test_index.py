"""Which kinds of index a night tries: the former bundle's alone while that finds enough, otherwise all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.vocabulary import Vocabulary
from recsys.night import index as module
from recsys.retrieval.choice import IndexReport
from recsys.retrieval.factory import EXACT
from recsys.retrieval.index import Approximate, ItemIndex, build_index
from recsys.settings import Settings
from recsys.settings.read import parse_settings

ITEMS = 10
VECTORS = np.eye(ITEMS + 1, dtype=np.float32)
ALLOWED = np.arange(ITEMS + 1) > 0
REPORT = IndexReport(factory="", reason="Chosen.", wanted=0.98, k=5, users=1, items=ITEMS, width=ITEMS + 1)


def settings(index: str = "auto") -> Settings:
    return parse_settings({"name": "x", "interactions": {"source": "log.csv"}, "retrieve": {"index": index}})


def former(factory: str | None, items: int = ITEMS) -> Any:
    manifest = {"index": {"factory": EXACT if factory is None else factory}}
    return SimpleNamespace(manifest=manifest, vocabulary=Vocabulary(pl.Series(range(items))), label="yesterday's")


def tried(monkeypatch: pytest.MonkeyPatch, before: Any, reached: bool, asked: str = "auto") -> tuple[list[str], str]:
    """Strings that were tried, and the reason of the choice; an index that is named is found good where `reached`."""
    strings: list[str] = []

    def choose(given: Any, *_: Any) -> tuple[ItemIndex, IndexReport]:
        strings.append(given.index)
        exact = build_index(VECTORS, ALLOWED)
        good = reached and given.index != "auto"
        made = replace(exact, approximate=Approximate(index=None, factory=given.index)) if good else exact
        return made, REPORT

    monkeypatch.setattr(module, "choose_index", choose)
    dataset: Any = SimpleNamespace(split=SimpleNamespace(serving=[1]), vocabulary=Vocabulary(pl.Series(range(ITEMS))))
    _, report = module.chosen_index(settings(asked), dataset, SimpleNamespace(), VECTORS, ALLOWED, before)  # type: ignore[arg-type]
    return strings, report.reason


def test_the_former_kind_alone_is_tried_while_it_finds_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    strings, reason = tried(monkeypatch, former("IVF4,SQ8"), reached=True)
    assert strings == ["IVF4,SQ8"] and reason == "Chosen. yesterday's has that kind, so no other one was tried."


@pytest.mark.parametrize(
    ("before", "reached", "expected"),
    [
        (former("IVF4,SQ8"), False, ["IVF4,SQ8", "auto"]),  # it no longer finds enough
        (former(None), True, ["auto"]),  # the former search is exact
        (former("IVF4,SQ8", items=7), True, ["auto"]),  # the catalogue grew by three in ten
        (None, True, ["auto"]),
    ],
)
def test_otherwise_all_kinds_are_tried(
    monkeypatch: pytest.MonkeyPatch, before: Any, reached: bool, expected: list[str]
) -> None:
    assert tried(monkeypatch, before, reached) == (expected, "Chosen.")


def test_an_index_that_is_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(monkeypatch, former("IVF4,SQ8"), reached=True, asked="HNSW32")[0] == ["HNSW32"]
