"""A small shop with a served table: a text model, which learns in a second, and a log that can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.releases.switch import described, serve, settle
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table import build
from recsys.text.represent import represent

NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
NAMES = [f"{kind} {n}" for kind in ("tea", "cup", "pot") for n in range(6)]
K = 4


class TeaShop:
    """Forty users of five purchases, and three with one event each."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "log.csv").write_text("user,item,event,time\n")
        self.buy(
            (f"u{user:02d}", NAMES[(user * 5 + step * step) % 18], step) for user in range(40) for step in range(5)
        )
        self.buy([("one", "tea 1", 9), ("rare", "tin of tea", 9), ("view", "tea 2", 9)])
        texts = [*NAMES, "tin of tea"]
        pl.DataFrame({"item": texts, "title": texts}).write_csv(root / "items.csv")
        tree: dict[str, Any] = {
            "name": "tea",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": {
                "source": "log.csv",
                "columns": {"user_id": "user", "item_id": "item", "timestamp": "time", "event": "event"},
                "withdraw": [{"column": "event", "one_of": ["back"]}],
            },
            "items": {"source": "items.csv", "columns": {"item_id": "item"}, "text": ["title"]},
            "filter": {"events": ["buy"], "min_user_interactions": 3},
            "model": {"kind": "text"},
            "blend": {"kind": "never"},
            "retrieve": {"k": K, "batch_size": 7},
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db"},
        }
        self.settings: Settings = parse_settings({**tree, **more})

    def buy(self, events: Any, event: str = "buy") -> None:
        """Go on with the log: user, item, day."""
        with (self.root / "log.csv").open("a") as log:
            for user, item, day in events:
                log.write(f"{user},{item},{event},{1_700_000_000 + day * 86_400}\n")

    def with_retrieve(self, **more: Any) -> Settings:
        """The settings with others of [retrieve]."""
        return self.settings.model_copy(update={"retrieve": self.settings.retrieve.model_copy(update=more)})

    def read(self) -> TableVersions:
        return ingest(self.settings).versions

    def learn(self) -> str:
        """A bundle of the log."""
        versions = self.read()
        represent(self.settings, versions)
        return fit(self.settings, versions).bundle

    def publish(self, bundle: str, run: str, moment: datetime = NOW) -> None:
        """Serve what the bundle makes of the log, as a night does."""
        settle(self.settings)
        built = build.build(self.settings, self.read(), bundle, run, moment)
        release = described(self.settings, run, bundle, "night")
        serve(self.settings, release, lambda said: build.publish(self.settings, built, said))

    def table(self, version: int | None = None) -> pl.DataFrame:
        return build.read_candidates(self.settings.warehouse, version).collect()


def lists(frame: pl.DataFrame, users: Sequence[str] | None = None) -> Mapping[str, list[str]]:
    """Items of users, best first."""
    some = frame if users is None else frame.filter(pl.col("user_id").is_in(users))
    return dict(some.sort("rank").group_by("user_id").agg("item_id").iter_rows())
