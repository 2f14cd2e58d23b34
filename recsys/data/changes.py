"""Users whose events differ between two versions of the log: new ones, withdrawals, corrections, and rows taken out.

A version is a set of Parquet files. A commit that adds rows adds files, so most of the log is in files that both
versions have, and is not read.
"""

from __future__ import annotations

import polars as pl
from deltalake import DeltaTable

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.storage.delta import data_files
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import scan, table_path

_ROW = (ITEM_ID, TIMESTAMP, EVENT, WEIGHT, POSITION)


def log_id(root: str) -> str:
    """Id of the log's Delta table, which a table made anew changes."""
    return str(DeltaTable(table_path(root, INTERACTIONS)).metadata().id)


def changed_users(root: str, since: int, now: int) -> pl.Series | None:
    """Return the users, ascending, whose rows of the log differ between two versions; also those who left it.

    None: the older version is gone, so that nobody can say.
    """
    path = table_path(root, INTERACTIONS)
    if since > now or not is_kept(path, since):
        return None
    before, after = (set(data_files(DeltaTable(path, version=version))) for version in (since, now))
    added, removed = sorted(after - before), sorted(before - after)
    if not (added and removed):
        return _users(scan(root, INTERACTIONS, now).head(0) if not (added or removed) else _scan(added or removed))
    both = _digests(added).join(_digests(removed), on=USER_ID, how="full", coalesce=True, suffix="__before")
    differs = pl.col("rows").ne_missing(pl.col("rows__before")) | pl.col("digest").ne_missing(pl.col("digest__before"))
    return _users(both.filter(differs))


def _users(rows: pl.LazyFrame) -> pl.Series:
    return rows.select(pl.col(USER_ID).unique()).collect(engine="streaming")[USER_ID].sort()


def _scan(files: list[str]) -> pl.LazyFrame:
    return pl.scan_parquet(files, glob=False)


def _digests(files: list[str]) -> pl.LazyFrame:
    """Count and digest of each user's rows, whatever their order."""
    row = pl.struct(_ROW).hash()
    return _scan(files).group_by(USER_ID).agg(pl.len().alias("rows"), row.sum().alias("digest"))
