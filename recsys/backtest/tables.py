"""Tables of past nights: a log that grows by each night's events, in a warehouse of the backtest's own.

The log is read from the user's warehouse where it has been ingested, and is never written there. A night is one more
version of the table of interactions, as it was then; the catalogue and the user table have no times, and are today's.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from deltalake import DeltaTable

from recsys.columns import (
    EVENT,
    INTERACTIONS,
    ITEM_ID,
    ITEM_VECTORS,
    ITEMS,
    POSITION,
    TIMESTAMP,
    USER_ID,
    USERS,
    WEIGHT,
    WITHDRAWAL,
)
from recsys.errors import InputError, RecsysError
from recsys.ingestion.ingest import Progress, ingest
from recsys.ingestion.provenance import check_filled
from recsys.runs import is_busy, local_folder
from recsys.settings import Settings
from recsys.storage.intact import note_write
from recsys.storage.warehouse import (
    TableVersions,
    append,
    commit_metadata,
    current_versions,
    latest_version,
    scan,
    table_path,
)

FOLDER: Final = "backtests"  # in the user's warehouse
NIGHTS: Final = "nights"  # in a backtest's folder: the warehouse of its past nights
LOG: Final = "log-"  # begin of the folders that hold sources read for a backtest
UNTIL: Final = "until"  # in a commit's metadata: the moment of the night that the table is of


@dataclass(frozen=True, kw_only=True)
class Source:
    """The log that is replayed.

    Attributes
    ----------
    root, versions
        The warehouse that is read, and its tables' versions.
    ingested
        Whether the sources were read for the backtest; otherwise the tables are as `recsys ingest` left them.
    """

    root: str
    versions: TableVersions
    ingested: bool

    @property
    def log(self) -> pl.LazyFrame:
        """The table of interactions."""
        return scan(self.root, INTERACTIONS, self.versions.interactions)

    def span(self) -> tuple[int, int, int]:
        """Times of the first and the last event, in microseconds, and the number of events.

        Raises
        ------
        InputError
            The log has no times, or no event.
        """
        times = pl.col(TIMESTAMP)
        counted = self.log.filter(pl.col(EVENT) != WITHDRAWAL).select(
            times.min().dt.epoch("us").alias("first"),
            times.max().dt.epoch("us").alias("last"),
            pl.len().alias("events"),
            times.null_count().alias("without"),
        )
        first, last, events, without = counted.collect(engine="streaming").row(0)
        if without or first is None:
            raise InputError(
                f"The log has no times ({without:,} of {events:,} events), so nobody can say which of them a past "
                "night knew; name the column of times in interactions.columns.timestamp."
            )
        return int(first), int(last), int(events)

    def digest(self) -> str:
        """sha256 (hex) of what the tables hold, in whatever order."""
        found = hashlib.sha256()
        rows = self.log.select(USER_ID, ITEM_ID, TIMESTAMP, EVENT, WEIGHT, POSITION).collect(engine="streaming")
        hashes = rows.hash_rows(seed=0).to_numpy()
        found.update(f"{rows.schema} {len(rows)} {int(np.add.reduce(hashes, dtype=np.uint64))}".encode())
        for table, version, key in ((ITEMS, self.versions.items, ITEM_ID), (USERS, self.versions.users, USER_ID)):
            if version is not None:
                content = io.BytesIO()
                scan(self.root, table, version).collect(engine="streaming").sort(key).write_ndjson(content)
                found.update(content.getbuffer())
        return found.hexdigest()


def open_source(settings: Settings, folder: Path, progress: Progress | None = None) -> Source:
    """The log of a configuration: its warehouse's, or, where nothing has been ingested, its sources read into `folder`.

    Raises
    ------
    InputError
        As `recsys ingest` does.
    """
    if latest_version(settings.warehouse, INTERACTIONS) is not None:
        check_filled(settings)
        return Source(root=settings.warehouse, versions=current_versions(settings.warehouse), ingested=False)
    own = settings.model_copy(update={"warehouse": str(folder)})
    versions = ingest(own, progress, rebuild=latest_version(folder, INTERACTIONS) is not None).versions
    return Source(root=str(folder), versions=versions, ingested=True)


def begin_tables(root: Path, source: Source) -> None:
    """Copy what has no times into the backtest's warehouse: catalogue, users, and text vectors that are known."""
    for table, version in (
        (ITEMS, source.versions.items),
        (USERS, source.versions.users),
        (ITEM_VECTORS, latest_version(source.root, ITEM_VECTORS)),
    ):
        if version is not None and latest_version(root, table) is None:
            rows = scan(source.root, table, version).collect(engine="streaming")
            append(root, table, rows, expected=None)


def tables_at(root: Path, source: Source, at: int) -> TableVersions:
    """Tables that hold what was known at a moment, and nothing later; nights come in the order of time.

    Only the events since the night before are added. A night that is asked for again is as it was.

    Raises
    ------
    ValueError
        The table has gone past this moment.
    """
    version, held = latest_version(root, INTERACTIONS), held_until(root)
    if held is not None and held > at:
        raise ValueError(f"the table is of {held}, later than {at}")
    if held != at:
        moments = pl.col(TIMESTAMP).dt.epoch("us")
        new = source.log.filter(moments < at) if held is None else source.log.filter(moments >= held, moments < at)
        rows = new.sort(POSITION).collect(engine="streaming")
        if len(rows) or version is None:
            version = append(root, INTERACTIONS, rows, expected=version, metadata={UNTIL: at})
    assert version is not None
    return TableVersions(interactions=version, items=latest_version(root, ITEMS), users=latest_version(root, USERS))


def held_until(root: Path) -> int | None:
    """The moment that the table of interactions is of; None where there is none."""
    if latest_version(root, INTERACTIONS) is None:
        return None
    return int(commit_metadata(root, INTERACTIONS)[UNTIL])


def only_newest(root: Path, table: str) -> None:
    """Delete the files of a table's older versions."""
    path = table_path(root, table)
    DeltaTable(path).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    note_write(path)


def drop_replays(warehouse: str) -> int:
    """Delete the copies of the log that backtests of a warehouse have left, and return in how many folders they lay.

    A backtest that was killed begins anew after that; results of nights, which name no user, stay.

    Raises
    ------
    RecsysError
        A backtest is running; nothing is deleted.
    """
    found = replays(warehouse)
    if any(is_busy(str(path)) for path in found):
        raise RecsysError("A backtest is running with a copy of the log; end it, or wait for it.")
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return len(found)


def replays(warehouse: str) -> list[Path]:
    """Folders with copies of the log that backtests of a warehouse have left."""
    home = local_folder(warehouse) / FOLDER
    return [path for pattern in (f"*/{NIGHTS}", f"{LOG}*") for path in home.glob(pattern) if path.is_dir()]
