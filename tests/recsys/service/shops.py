"""A warehouse whose bundles answer, made in milliseconds: six items in two directions, no training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.bundles.store import write_bundle
from recsys.columns import INTERACTIONS, ITEMS
from recsys.data.vocabulary import Vocabulary
from recsys.serving.fallback import Popular
from recsys.storage.warehouse import SCHEMAS, latest_version, overwrite
from tests.recsys.releases.shop import Shop

IDS: Final = [1, 2, 3, 4, 5, 6]
DIRECTIONS: Final = [(1, 0), (0.9, 0.1), (0.8, 0.2), (0, 1), (0.1, 0.9), (0.2, 0.8)]
BRANDS: Final = ["x", "x", "x", "y", "y", "z"]
RULES: Final[dict[str, Any]] = {
    "stock": {"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]},
    "brands": {"kind": "at_most", "column": "brand", "n": 1},
}
LOG: Final = {"ann": [1, 2], "bob": [4], "eve": [9]}  # 9: an item that no bundle knows


class AnsweringShop(Shop):
    """A shop whose bundles answer: by the mean of what was had, then by popularity, 6 before 5 and so on."""

    def __init__(self, root: Path, **more: Any) -> None:
        tree = {
            "model": {"kind": "text"},
            "items": {"source": "items.csv", "text": ["title"]},
            "retrieve": {"k": 2},
        }
        super().__init__(root, **{**tree, **more})

    def bundle(self, content: str) -> Path:
        vectors = np.zeros((7, 2), dtype=np.float32)
        vectors[1:] = DIRECTIONS
        vocabulary = Vocabulary(pl.Series("item_id", IDS))
        counts = np.arange(7, dtype=np.float32)[None, :]
        return write_bundle(
            self.settings.warehouse,
            settings=self.settings,
            vocabulary=vocabulary,
            catalogue=pl.DataFrame({"item_id": vocabulary.items, "title": [f"{content} {item}" for item in IDS]}),
            features={},
            weights={},
            vectors=vectors,
            allowed=np.arange(7) > 0,
            lineage={},
            more={"fallback": Popular(counts=counts)},
        )

    def log(self, events: dict[str, list[int]] | None = None) -> None:
        """The log as the newest version of its table, an event an hour."""
        rows = [(user, item) for user, items in (events or LOG).items() for item in items]
        frame = pl.DataFrame(
            {
                "user_id": [user for user, _ in rows],
                "item_id": [item for _, item in rows],
                "timestamp": [datetime(2026, 4, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(len(rows))],
                "event": "",
                "weight": None,
                "position": range(len(rows)),
            },
            schema={**SCHEMAS[INTERACTIONS], "user_id": pl.String(), "item_id": pl.Int64()},
        )
        self._replace(INTERACTIONS, frame)

    def items(self, in_stock: list[bool]) -> None:
        """The catalogue as the newest version of its table."""
        titles = [f"item {item}" for item in IDS]
        frame = pl.DataFrame({"item_id": IDS, "title": titles, "in_stock": in_stock, "brand": BRANDS})
        self._replace(ITEMS, frame)

    def _replace(self, table: str, frame: pl.DataFrame) -> None:
        root = self.settings.warehouse
        overwrite(root, table, frame, expected=latest_version(root, table))
