"""Older versions of the tables, old rows of the quarantine, and many small files or commits made few.

All other rows of today stay as they are. Of a candidate table the versions of kept releases stay, so that they can come
back; of the others, whose newest version is all that anybody reads, versions stay for `retention.days`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from recsys.columns import FORGOTTEN, INTERACTIONS, ITEM_VECTORS, ITEMS, QUARANTINE, REJECTED_AT, USERS
from recsys.releases.choice import built_runs
from recsys.retention.kept import Kept
from recsys.retention.removal import Removal
from recsys.settings import Settings
from recsys.storage.files import ABANDONED_AFTER, refusal
from recsys.storage.intact import is_kept, note_write
from recsys.storage.purge import COMMIT, half_written
from recsys.storage.remote import filesystem
from recsys.storage.warehouse import KEEP_LOG, commit_metadata, commit_properties, latest_version, scan, table_path
from recsys.table.naming import candidates_table

SMALL: Final = 32 << 20  # bytes; a smaller file is one of the small ones
MANY: Final = 64  # small files of a table, from which on they are made few: each costs a request when it is read
TARGET: Final = 128 << 20  # bytes of a file that small ones are made to
# commits of a table since its last checkpoint: whoever opens it reads each, in a store by a request; what that costs is
# measured by benchmarks/commits.py
SINGLE: Final = 10


def older_versions(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Files of table versions that nobody can ask for any more, a removal a table."""
    root = settings.warehouse
    for table in present(settings):
        path, options = table_path(root, table), _options(settings, table, kept)
        files = _there(path, DeltaTable(path).vacuum(dry_run=True, **options))
        if files:
            yield Removal(
                kind="table",
                what=f"{path}: {len(files)} files of older versions",
                size=sum(files.values()),
                act=partial(_vacuum, root, table, options, sorted(files)),
            )


def stray_files(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Old files of rows that no version of their table names any more, a removal a table.

    A checkpoint of a table soon forgets which files were taken out, and killed processes leave files that no commit
    has named. Candidates that were built and kept back stay with the records of their nights.
    """
    built = {name for night in built_runs(settings) for name in night.candidates.staged.names}
    for table in present(settings):
        path, options = table_path(settings.warehouse, table), _options(settings, table, kept)
        opened = DeltaTable(path)
        found = {name for name in opened.vacuum(dry_run=True, full=True, **options) if name.endswith(".parquet")}
        stray = found - set(opened.vacuum(dry_run=True, **options)) - built
        files = _there(path, stray - _taken_out_since(path, kept.since)) if stray else {}
        if files:
            yield Removal(
                kind="stray files",
                what=f"{path}: {len(files)} files that no version names",
                size=sum(files.values()),
                act=partial(delete, path, sorted(files)),
            )


def half_written_files(settings: Settings) -> Iterator[Removal]:
    """Files of rows that killed processes were writing more than a day ago."""
    for path in half_written(settings.warehouse):
        found = path.stat()
        if time.time() - found.st_mtime > ABANDONED_AFTER:
            act = partial(path.unlink, missing_ok=True)
            yield Removal(kind="unfinished file", what=str(path), size=found.st_size, act=act)


def rejected_rows(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Rows of the quarantine that were rejected long ago; a source that still has them is counted all the same."""
    root = settings.warehouse
    if latest_version(root, QUARANTINE) is None:
        return
    old = scan(root, QUARANTINE).filter(pl.col(REJECTED_AT) < kept.first)
    rows = int(old.select(pl.len()).collect(engine="streaming").item())
    if rows:
        what = f"{table_path(root, QUARANTINE)}: {rows:,} rows"
        yield Removal(kind="rejected rows", what=what, size=0, act=partial(_drop_rejected, root, kept.first))


def small_files(settings: Settings) -> Iterator[Removal]:
    """Tables with many small files, which become few large ones in one commit; no row changes."""
    for table in (INTERACTIONS, QUARANTINE, ITEM_VECTORS, FORGOTTEN):
        if latest_version(settings.warehouse, table) is None:
            continue
        path = table_path(settings.warehouse, table)
        sizes = DeltaTable(path).get_add_actions(flatten=True)["size_bytes"].to_pylist()
        few = [size for size in sizes if size < SMALL]
        if len(few) >= MANY:
            yield Removal(
                kind="small files",
                what=f"{path}: {len(few)} files made few",
                size=0,
                act=partial(_compact, settings.warehouse, table),
            )


def single_commits(settings: Settings) -> Iterator[Removal]:
    """Tables whose last commits are read one by one, which become one checkpoint; no version and no row changes.

    Delta's own writer makes a checkpoint at every hundredth commit, and each step of a night opens tables many times.
    """
    for table in present(settings):
        path = table_path(settings.warehouse, table)
        count = commits_since_checkpoint(path)
        if count >= SINGLE:
            yield Removal(
                kind="single commits",
                what=f"{path}: {count} commits made one checkpoint",
                size=0,
                act=partial(_checkpoint, path),
            )


def commits_since_checkpoint(path: str) -> int:
    """Count the commits of a table that nobody has put together yet."""
    store, folder = filesystem(f"{path}/_delta_log")
    commits, checkpoint = [], -1
    for info in store.get_file_info(fs.FileSelector(folder)):
        if found := COMMIT.match(info.base_name):
            if info.base_name.endswith(".json"):
                commits.append(int(found[1]))
            elif ".checkpoint." in info.base_name:
                checkpoint = max(checkpoint, int(found[1]))
    return sum(version > checkpoint for version in commits)


def present(settings: Settings) -> list[str]:
    """Names of the tables that are there."""
    root, own = settings.warehouse, candidates_table(settings.warehouse, settings.name)
    names = (INTERACTIONS, ITEMS, USERS, QUARANTINE, ITEM_VECTORS, FORGOTTEN, own)
    return [name for name in names if latest_version(root, name) is not None]


def _options(settings: Settings, table: str, kept: Kept) -> dict[str, Any]:
    """Return the options by which a table's older versions are looked for."""
    path, age = table_path(settings.warehouse, table), datetime.now(UTC) - kept.since  # a table counts from now
    hours = max(0, int(age.total_seconds() // 3600))
    options: dict[str, Any] = {"retention_hours": hours, "enforce_retention_duration": False}
    if versions := [one for one in kept.versions.get(table, ()) if is_kept(path, one)]:  # `forget` takes them
        options["keep_versions"] = list(versions)
    return options


def _taken_out_since(path: str, moment: datetime) -> set[str]:
    """Files that a commit took out of a table after a moment, and that younger versions than it may still need."""
    since, found = moment.timestamp() * 1000, set()
    store, folder = filesystem(f"{path}/_delta_log")
    for info in store.get_file_info(fs.FileSelector(folder)):
        if info.base_name.endswith(".json") and info.mtime_ns >= moment.timestamp() * 1e9:
            with store.open_input_stream(info.path) as stream:
                for line in stream.read().splitlines():
                    removed = json.loads(line).get("remove") if line.startswith(b'{"remove"') else None
                    if removed and removed.get("deletionTimestamp", since) >= since:
                        found.add(unquote(removed["path"]))
    return found


def _drop_rejected(root: str, before: datetime) -> None:
    path = table_path(root, QUARANTINE)
    DeltaTable(path).delete(f"{REJECTED_AT} < '{before.astimezone(UTC).isoformat()}'", **_said(root, QUARANTINE))
    note_write(path)


def _said(root: str, table: str) -> dict[str, Any]:
    """Options of a commit that cleans up: it says what the one before said, and leaves the log alone."""
    said = commit_properties(commit_metadata(root, table))
    return {"commit_properties": said, "post_commithook_properties": KEEP_LOG}


def delete(path: str, names: list[str]) -> None:
    """Delete files of a folder or URL, in the order in which they are named; those that are gone are none."""
    store, folder = filesystem(path)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            store.delete_file(f"{folder}/{name}")


def _vacuum(root: str, table: str, options: dict[str, Any], names: list[str]) -> None:
    path = table_path(root, table)
    try:
        DeltaTable(path).vacuum(dry_run=False, **_said(root, table), **options)
    except (DeltaError, OSError) as error:
        if refusal(error) is None:
            raise
        delete(path, names)  # a full disk takes no commit, and the files may go without one
    note_write(path)


def _compact(root: str, table: str) -> None:
    DeltaTable(table_path(root, table)).optimize.compact(target_size=TARGET, **_said(root, table))
    note_write(table_path(root, table))


def _checkpoint(path: str) -> None:
    DeltaTable(path).create_checkpoint()


def _there(path: str, names: Iterable[str]) -> dict[str, int]:
    """Bytes of the files that are there: the clean-up of a table also lists those that it has deleted before."""
    store, folder = filesystem(path)
    wanted = sorted({name.rpartition("/")[2] for name in names})
    found = store.get_file_info([f"{folder}/{name}" for name in wanted]) if wanted else []
    return {info.base_name: info.size for info in found if info.type == fs.FileType.File}
