"""A warehouse with real candidate tables and bundle folders, made in milliseconds: no training, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys import runs
from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import latest_bundle, publish_bundle, write_bundle
from recsys.columns import CANDIDATES
from recsys.data.vocabulary import Vocabulary
from recsys.exports.base import Candidates
from recsys.exports.several import export
from recsys.releases.record import champion
from recsys.releases.switch import described, serve, settle
from recsys.releases.telling import tell
from recsys.settings import FileExportSettings, Settings
from recsys.settings.read import parse_settings
from recsys.storage import stream
from recsys.storage.warehouse import SCHEMAS, commit_metadata, scan, table_path
from recsys.table.build import BuiltCandidates
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

    def path(self, table: str) -> str:
        """Folder of a table."""
        return table_path(self.settings.warehouse, table)

    def night(self, run: str, users: Sequence[str] = ("ann", "bob")) -> None:
        """Publish a run as a night does: settle, serve, and the export in a step of its own."""
        settle(self.settings)
        bundle = self.bundle(run)
        staged = self.stage(run, bundle, users)
        release = described(
            self.settings, run, bundle, "night", metrics={"test/ndcg_at_10": 0.25}, verdict=f"Published: {run}."
        )

        def commit(said: Mapping[str, Any]) -> None:
            stream.publish(replace(staged, metadata={**staged.metadata, **said}))

        served = serve(self.settings, release, commit, exporting=False)
        tell(self.settings, None)
        if self.settings.export.wanted:
            export(self.settings, Candidates(path=self.path("candidates"), version=served.version, run=run))

    def kept_back(self, run: str, users: Sequence[str] = ("ann", "bob")) -> Path:
        """Build a run that the gate kept back: its record, its bundle, and its rows beside the table."""
        bundle = self.bundle(run)
        staged = self.stage(run, bundle, users)
        built = BuiltCandidates(
            staged=staged, run=run, rows=staged.rows, users=2, k=2, short_lists=0, empty_lists=0, without_signal=0,
            unknown_events=0, unlisted=0, bundle=bundle.name, index="i", seconds=0.0,
        )  # fmt: skip
        reports: dict[str, dict[str, Any]] = {
            "train": {"bundle": str(bundle)},
            "evaluate": {"metrics": {"test/ndcg_at_10": 0.125}},
            "retrieve": asdict(built),
            "judge": {"sentence": f"Kept back: {run}."},
        }
        state = runs.RunState(key=f"key-{run}", run_id=run, started=NOW.isoformat(), status="finished")
        for name, report in reports.items():
            state = state.with_step(name, report, 1.0)
        runs.save(runs.state_folder(self.settings.warehouse), state)
        return bundle

    def whole(self) -> bool:
        """Return whether the table and the export each hold the rows of one run, all of them."""
        rows = scan(self.settings.warehouse, "candidates").collect()
        return len(rows) == 4 and rows["run"].n_unique() == 1 and self._exported().height == 4

    def served(self) -> set[str]:
        """The runs that table, bundle pointer, export and list name: one, where they agree."""
        rows = scan(self.settings.warehouse, "candidates").collect()
        title = read_bundle(latest_bundle(self.settings.warehouse, NAME)).catalogue["title"][0]
        last = champion(self.settings)
        named = {*rows["run"], title, commit_metadata(self.settings.warehouse, "candidates")["run"]}
        named |= {None if last is None else last.run}
        return named | (set(self._exported()["run"]) if self.settings.export.wanted else set())

    def _exported(self) -> pl.DataFrame:
        assert isinstance(self.settings.export, FileExportSettings)
        return pl.read_parquet(f"{self.settings.export.path}/*.parquet")
