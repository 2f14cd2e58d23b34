"""A warehouse with real candidate tables and bundle folders, made in milliseconds: no training, no MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.bundles.store import publish_bundle, write_bundle
from recsys.columns import CANDIDATES
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import stream
from recsys.storage.warehouse import SCHEMAS
from recsys.table.naming import candidates_table

NAME: Final = "shop"
NOW: Final = datetime(2026, 5, 1, 4, tzinfo=UTC)


class Shop:
    """The warehouse; what it exports lies beside it."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.root = root
        tree = {"name": NAME, "warehouse": str(root), "interactions": {"source": "log.csv"}}
        self.settings: Settings = parse_settings({**tree, **more})

    def bundle(self, content: str) -> Path:
        """A bundle that holds nothing but a title of its own."""
        vectors = np.ones((3, 2), dtype=np.float32)
        vectors[0] = 0
        vocabulary = Vocabulary(pl.Series("item_id", [1, 2]))
        return write_bundle(
            self.settings.warehouse,
            settings=self.settings,
            vocabulary=vocabulary,
            catalogue=pl.DataFrame({"item_id": vocabulary.items, "title": [content, content]}),
            features={},
            weights={},
            vectors=vectors,
            allowed=np.array([False, True, True]),
            lineage={},
        )

    def point(self, bundle: Path) -> None:
        """Make the bundle the newest."""
        publish_bundle(self.settings.warehouse, bundle)

    def stage(self, run: str, bundle: Path, users: Sequence[str] = ("ann", "bob")) -> stream.Staged:
        """Rows of a run beside the table, two a user."""
        schema = {**SCHEMAS[CANDIDATES], "user_id": pl.String(), "item_id": pl.Int64()}
        rows = pl.DataFrame(
            {
                "run": run,
                "user_id": [user for user in sorted(users) for _ in range(2)],
                "rank": [1, 2] * len(users),
                "item_id": [1, 2] * len(users),
                "score": [1.0, 0.5] * len(users),
                "source": "vector",
                "bundle": bundle.name,
                "index": "i",
                "as_of": NOW,
                "interactions_version": 0,
                "items_version": None,
            },
            schema=schema,
        )
        metadata = {"name": NAME, "run": run, "bundle": bundle.name, "as_of": NOW.isoformat()}
        table = candidates_table(self.settings.warehouse, NAME)
        frames = [rows] if len(rows) else []
        return stream.stage(self.settings.warehouse, table, schema, frames, sorted_by="user_id", metadata=metadata)

    def table(self, run: str, bundle: Path, users: Sequence[str] = ("ann", "bob")) -> int:
        """Rows of a run as the newest version of the table."""
        return stream.publish(self.stage(run, bundle, users))
