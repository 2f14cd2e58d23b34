"""The candidate table between nights: rows of the users with new events alone, by the bundle that is served.

Nothing is trained. The table is written anew, other users' rows as they were, in its order and in one commit, so a
reader sees the old rows of a user or the new ones, whole, and a kill at any moment leaves the old table or the new one.
The commit and the new rows name the release's run; the moment and the version of the log that they name are new.

A refresh is no release of its own: `rollback` goes back to the release before. Of the refreshed versions of a table
the last two stay, and those that are listed as a release's.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable

from recsys import runs
from recsys.columns import INTERACTIONS, INTERACTIONS_VERSION, USER_ID
from recsys.data.changes import changed_users, log_id
from recsys.retrieval.shelf import listed_items
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.storage import stream
from recsys.storage.delta import data_files, scan_delta
from recsys.storage.files import file_aside, write_json
from recsys.storage.history import changes
from recsys.storage.intact import check_intact
from recsys.storage.warehouse import TableVersions, commit_metadata, scan, table_path, told_by
from recsys.table.build import said_of
from recsys.table.everyone import some_to_serve
from recsys.table.kept import of_some_users
from recsys.table.naming import LOG, candidates_table
from recsys.table.rows import rows_for
from recsys.table.stored import frames, merged

REFRESH: Final = "refresh"  # in a commit's metadata: how many users a refresh changed


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Users whose rows are to be made anew.

    Attributes
    ----------
    users
        Ascending; None: all, as the version of the log that the table was made of is gone.
    since, now
        Versions of the log.
    """

    users: pl.Series | None
    since: int
    now: int

    @property
    def nothing(self) -> bool:
        """Return whether no user has an event that the table does not know."""
        return self.users is not None and self.users.is_empty()


@dataclass(frozen=True, kw_only=True, eq=False)
class Refreshed:
    """A refreshed table.

    Attributes
    ----------
    users
        Whose rows are new or gone, ascending.
    new_users, gone_users
        How many of them had no row before, and have none now.
    rows, replaced
        Rows that are new, and those whose place they take.
    version, before
        Of the candidate table.
    counts
        Lists by fallback, short lists and the like, among these users.
    """

    users: pl.Series
    new_users: int
    gone_users: int
    rows: int
    replaced: int
    version: int
    before: int
    counts: dict[str, int]
    seconds: float


def changed_since(settings: Settings, versions: TableVersions) -> Changed:
    """Find the users whose events the candidate table does not know yet; there must be a table."""
    root = settings.warehouse
    table = candidates_table(root, settings.name)
    said = commit_metadata(root, table).get(LOG)
    if said is None:  # rows of an earlier version of the program, or brought back: they say it themselves
        path = table_path(root, table)
        newest = pl.col(INTERACTIONS_VERSION).max()
        found = scan_delta(DeltaTable(path)).select(newest).collect(engine="streaming").item()
        since = -1 if found is None else int(found)
    else:
        since = int(said["version"]) if said["table"] == log_id(root) else -1
    now = versions.interactions
    return Changed(users=None if since < 0 else changed_users(root, since, now), since=since, now=now)


def refresh(
    settings: Settings,
    versions: TableVersions,
    changed: Changed,
    bundle: str | Path,
    run: str,
    as_of: datetime,
    *,
    listed: Iterable[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Refreshed:
    """Make the rows of users anew and commit them, inside of the warehouse's lock.

    Parameters
    ----------
    bundle
        Folder of the bundle that is served.
    run, as_of
        The release's run, and the moment (with a zone) that the new rows speak for.
    listed
        Versions of the candidate table that are releases; their files stay.

    Raises
    ------
    InputError
        Not a sound bundle, one of other features, or one that can recommend no item of the catalogue.
    RecsysError
        The disk does not take the rows, or another process has written the table.
    """
    began = time.perf_counter()
    root, table = settings.warehouse, candidates_table(settings.warehouse, settings.name)
    path = table_path(root, table)
    served = open_bundle(bundle)
    served.check_features(settings)
    allowed = listed_items(settings, versions, served.bundle.vocabulary)
    opened = DeltaTable(path)
    check_intact(opened, path)
    files, before = data_files(opened), int(opened.version())
    users = _everyone(settings, versions, files) if changed.users is None else changed.users
    histories, fallback = some_to_serve(settings, versions, served, users, allowed)
    rows = rows_for(settings, versions, served, histories, fallback, allowed, run=run, as_of=as_of)
    replaced = _Replaced(users=users)
    said = said_of(settings, rows)
    if changed.users is not None:
        said = of_some_users(said, commit_metadata(root, table))
    token = _begin(settings, path, before)
    staged = stream.stage(
        root,
        table,
        rows.schema,
        merged(replaced.others(frames(files)), rows.frames(progress)),
        sorted_by=USER_ID,
        metadata=said | {REFRESH: len(users)},
        token=token,
    )
    version = stream.publish(staged)
    _note(settings).unlink(missing_ok=True)
    _tidy(path, set(listed))
    made = histories.users.filter(pl.Series(rows.counts > 0))
    return Refreshed(
        users=users,
        new_users=int((~made.is_in(pl.Series(USER_ID, list(replaced.seen), dtype=users.dtype).implode())).sum()),
        gone_users=len(replaced.seen - set(made)),
        rows=int(rows.counts.sum()),
        replaced=replaced.rows,
        version=version,
        before=before,
        counts=rows.counted(),
        seconds=time.perf_counter() - began,
    )


class _Replaced:
    """Counts the rows that go."""

    def __init__(self, *, users: pl.Series) -> None:
        self.users, self.rows, self.seen = users, 0, set[Any]()

    def others(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The rows of all users but these."""
        for frame in frames:
            theirs = frame[USER_ID].is_in(self.users.implode()).fill_null(value=False)
            self.rows += int(theirs.sum())
            self.seen |= set(frame[USER_ID].filter(theirs).unique())
            yield frame.filter(~theirs)


def _everyone(settings: Settings, versions: TableVersions, files: list[str]) -> pl.Series:
    """All users of the log and of the table but the one whom nobody knows."""
    parts = [scan(settings.warehouse, INTERACTIONS, versions.interactions)]
    parts += [pl.scan_parquet(files, glob=False)] if files else []
    users = pl.concat([part.select(USER_ID) for part in parts]).unique().collect(engine="streaming")[USER_ID]
    nobody = settings.retrieve.unknown_user
    return users.drop_nulls().filter(users.drop_nulls().cast(pl.String) != (nobody or "\0")).sort()


def _note(settings: Settings) -> Path:
    return runs.state_folder(settings.warehouse) / REFRESH / f"{settings.name}.json"


def _begin(settings: Settings, path: str, before: int) -> str:
    """Delete what a refresh that was killed has written, and note the token of this one's files."""
    note = _note(settings)
    try:
        left = json.loads(note.read_text(encoding="utf-8"))
        stream.discard_unfinished(path, str(left["token"]), int(left["before"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    token = str(uuid.uuid4())
    note.parent.mkdir(parents=True, exist_ok=True)
    with file_aside(note) as aside:
        write_json(aside, {"token": token, "before": before})
    return token


def _tidy(path: str, listed: set[int]) -> None:
    """Delete the files of the refreshed version before the one before, which no reader has open any more.

    A clean-up commits, too, and says what the commit before it said; its versions have the files of that one.
    """
    refreshed = [int(commit["version"]) for commit in changes(DeltaTable(path))[1:3] if REFRESH in told_by(commit)]
    if len(refreshed) == 2 and listed.isdisjoint(range(refreshed[1], refreshed[0])):
        stream.discard_version(path, refreshed[1])
