"""Every target at once, each read back by its own client."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import obstore
import polars as pl
from obstore.store import from_url

from recsys.settings import Settings
from recsys.settings.read import parse_settings
from tests.recsys.exports.conftest import ObjectStore, Postgresql, Redis

Lists = dict[str, list[str]]  # a user's items, best first


def lists(rows: Any) -> Lists:
    """Lists of rows of user and item, in their order."""
    found: Lists = {}
    for user, item in rows:
        found.setdefault(user, []).append(item)
    return found


class Everywhere:
    """A configuration with a target of every kind; without a store there is none of S3."""

    def __init__(self, folder: Path, postgresql: Postgresql, redis: Redis, store: ObjectStore | None = None) -> None:
        self.folder, self.postgresql, self.redis, self.store = folder, postgresql, redis, store

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {
            "files": {"kind": "files", "path": str(self.folder / "files")},
            "lines": {"kind": "files", "path": str(self.folder / "wide.jsonl"), "format": "jsonl", "layout": "wide"},
            "db": {"kind": "postgresql", "address": self.postgresql.address()},
            "arrays": {
                "kind": "postgresql",
                "address": self.postgresql.address(),
                "table": "arrays",
                "layout": "wide",
                "columns": {"user_id": "user", "item_id": "items"},
            },
            "cache": {"kind": "redis", "address": self.redis.address},
            "lite": {"kind": "sqlite", "path": str(self.folder / "lite.db")},
            "duck": {"kind": "duckdb", "path": str(self.folder / "duck.db")},
            "lake": {"kind": "delta", "path": str(self.folder / "lake")},
        }
        if self.store is not None:
            found["objects"] = {"kind": "s3", "path": "s3://shop/everywhere", "endpoint": self.store.endpoint}
        return found

    def settings(self, *names: str) -> Settings:
        """The configuration with some of the targets; all, where none is named."""
        export = {name: keys for name, keys in self.targets.items() if name in names or not names}
        tree = {"name": "shop", "warehouse": str(self.folder / "warehouse"), "interactions": {"source": "log.csv"}}
        return parse_settings({**tree, "export": export})

    def read(self, name: str) -> Lists:
        """Lists that readers of a target find."""
        return dict(getattr(self, f"_{name}")())

    def _files(self) -> Lists:
        return lists(pl.read_parquet(self.folder / "files").select("user_id", "item_id").rows())

    def _lines(self) -> Lists:
        rows = map(json.loads, (self.folder / "wide.jsonl").read_text().splitlines())
        return {row["user_id"]: row["item_id"] for row in rows}

    def _db(self) -> Lists:
        return lists(self.postgresql.query("select user_id, item_id from candidates order by user_id, rank"))

    def _arrays(self) -> Lists:
        return dict(self.postgresql.query('select "user", items from arrays'))

    def _cache(self) -> Lists:
        client = self.redis.client()
        head = f"shop:{client.get('shop:current')}:"
        found = {key[len(head) :]: client.get(key) for key in client.scan_iter(f"{head}*")}
        return {user: json.loads(value)["item_id"] for user, value in found.items()}

    def _lite(self) -> Lists:
        with closing(sqlite3.connect(self.folder / "lite.db")) as connection:
            return lists(connection.execute("select user_id, item_id from candidates order by user_id, rank"))

    def _duck(self) -> Lists:
        with closing(duckdb.connect(str(self.folder / "duck.db"), read_only=True)) as connection:
            return lists(
                connection.execute("select user_id, item_id from candidates order by user_id, rank").fetchall()
            )

    def _lake(self) -> Lists:
        rows = pl.read_delta(str(self.folder / "lake")).sort("user_id", "rank")
        return lists(rows.select("user_id", "item_id").rows())

    def objects(self) -> Any:
        assert self.store is not None
        return from_url(
            "s3://shop/everywhere", config={"endpoint": self.store.endpoint}, client_options={"allow_http": True}
        )  # type: ignore[call-overload]

    def _objects(self) -> Lists:
        store = self.objects()
        files = json.loads(bytes(obstore.get(store, "latest.json").bytes()))["files"]
        frames = [pl.read_parquet(bytes(obstore.get(store, file).bytes())) for file in files]
        return lists(pl.concat(frames).select("user_id", "item_id").rows())
