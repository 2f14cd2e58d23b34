"""A small shop, rules for it, and a model that scores every item, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.ranking.blend import Blended, best_items
from recsys.retrieval.index import ItemIndex
from recsys.rules.apply import Rules, rules_of
from recsys.rules.base import Shop
from recsys.settings.read import parse_settings

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = 24 * 60 * 60 * 1_000_000

CATALOGUE = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e", "f"],
        "title": ["red shoe", "blue shoe", "red hat", "blue hat", "bread", "milk"],
        "in_stock": ["true", "True", "false", "true", "true", None],
        "brand": ["X", "X", "X", "Y", "Y", None],
        "genres": ["A|B", "A", "B", "C", None, "A | C"],
        "price": [10.0, 20.0, 30.0, 40.0, 5.0, 1.0],
        "from": ["2024-01-01", None, "2024-06-01T13:00:00Z", "", "2024-06-01", "2024-05-01"],
        "until": ["2024-06-01", "2024-05-31", None, "", "2025-01-01T00:00:00+02:00", "2024-06-01T11:59:59Z"],
        "countries": ["DE|AT", "DE", "FR", None, "AT", "DE"],
    }
)


def shop_of(catalogue: pl.DataFrame = CATALOGUE, **more: Any) -> Shop:
    return Shop(catalogue=catalogue, now=NOW, **more)


def made(rules: dict[str, Any], shop: Shop | None = None, names: list[str] | None = None) -> Rules:
    settings = parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, "rules": rules})
    found = rules_of(settings, shop or shop_of(), names=names)
    assert found is not None
    return found


def histories_of(*lists: list[int], **more: Any) -> Sequences:
    items = np.array([item for items in lists for item in items], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    return Sequences(users=pl.Series("user_id", range(len(lists))), items=items, offsets=offsets, **more)


@dataclass(frozen=True, eq=False)
class Scorer:
    """In place of a bundle that is open: queries [U, D] by user, an index, and perhaps a blend."""

    index: ItemIndex
    queries: np.ndarray
    blended: Blended | None = None
    requests: list[int] = field(default_factory=list)

    @property
    def bundle(self) -> Any:
        return SimpleNamespace(vectors=self.index.vectors, index=lambda: self.index)

    def encode(self, histories: Sequences) -> np.ndarray:
        return self.queries[histories.users.to_numpy()]

    def is_silent(self, histories: Sequences, queries: np.ndarray) -> np.ndarray:
        return np.asarray(histories.lengths == 0)

    def proposing(self, n: int) -> int:
        return n if self.blended is None else max(n, self.blended.candidates)

    def widest(self, n: int) -> int:
        return n if self.blended is None else self.proposing(n) * len(self.blended.sources)

    def best(self, histories: Sequences, *, k: int, queries: np.ndarray, **more: Any) -> Any:
        self.requests.append(len(histories))
        return best_items(self.index, queries, self.blended, histories, k=k, **more)


def ids(codes: np.ndarray, catalogue: pl.DataFrame = CATALOGUE) -> list[str]:
    """Ids of a list, one after the other, without what is empty."""
    return ["".join(catalogue["item_id"][int(code) - 1] for code in row if code != PADDING) for row in codes]
