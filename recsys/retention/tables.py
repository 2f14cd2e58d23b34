"""Older versions of the tables, and many small files made few.

A table's rows of today stay as they are. Of a candidate table the versions of kept releases stay, so that they can come
back; of the others, whose newest version is all that anybody reads, versions stay for `retention.days`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final

from deltalake import DeltaTable
from pyarrow import fs

from recsys.columns import INTERACTIONS, ITEM_VECTORS, ITEMS, QUARANTINE, USERS
from recsys.retention.kept import Kept
from recsys.retention.removal import Removal
from recsys.settings import Settings
from recsys.storage.intact import is_kept, note_write
from recsys.storage.remote import filesystem
from recsys.storage.warehouse import commit_metadata, commit_properties, latest_version, table_path
from recsys.table.naming import candidates_table

SMALL: Final = 32 << 20  # bytes; a smaller file is one of the small ones
MANY: Final = 64  # small files of a table, from which on they are made few: each costs a request when it is read
TARGET: Final = 128 << 20  # bytes of a file that small ones are made to


def older_versions(settings: Settings, kept: Kept, now: datetime) -> Iterator[Removal]:
    """Files of table versions that nobody can ask for any more, a removal a table."""
    root, own = settings.warehouse, candidates_table(settings.warehouse, settings.name)
    hours = max(0, int((now - kept.since).total_seconds() // 3600))
    for table in (INTERACTIONS, ITEMS, USERS, QUARANTINE, ITEM_VECTORS, own):
        if latest_version(root, table) is None:
            continue
        opened = DeltaTable(table_path(root, table))
        options: dict[str, Any] = {"retention_hours": hours, "enforce_retention_duration": False}
        path = table_path(root, table)
        if versions := [one for one in kept.versions.get(table, ()) if is_kept(path, one)]:  # `forget` takes them
            options["keep_versions"] = list(versions)
        files = opened.vacuum(dry_run=True, **options)
        if files:
            yield Removal(
                kind="table",
                what=f"{table_path(root, table)}: {len(files)} files of older versions",
                size=_bytes(table_path(root, table), files),
                act=partial(_vacuum, root, table, options),
            )


def small_files(settings: Settings) -> Iterator[Removal]:
    """Tables with many small files, which become few large ones in one commit; no row changes."""
    for table in (INTERACTIONS, QUARANTINE, ITEM_VECTORS):
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


def _vacuum(root: str, table: str, options: dict[str, Any]) -> None:
    said = commit_properties(commit_metadata(root, table))  # cleaning up is a commit, too
    DeltaTable(table_path(root, table)).vacuum(dry_run=False, commit_properties=said, **options)
    note_write(table_path(root, table))


def _compact(root: str, table: str) -> None:
    said = commit_properties(commit_metadata(root, table))
    DeltaTable(table_path(root, table)).optimize.compact(target_size=TARGET, commit_properties=said)
    note_write(table_path(root, table))


def _bytes(path: str, names: list[str]) -> int:
    store, folder = filesystem(path)
    found = store.get_file_info([f"{folder}/{name.rpartition('/')[2]}" for name in names])
    return sum(info.size for info in found if info.type == fs.FileType.File)
