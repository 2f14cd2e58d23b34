"""Remove users, items and old events from a warehouse's tables, so that no file of them holds them, and keep them out.

The list of what is forgotten is written first: a kill at any later point leaves a warehouse in which the same command
goes on. Tables are rewritten without the rows in one commit each; then the versions before it go, with their data files
and commits, for they still held them. Candidates come before the log, which says who has no event left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable
from pyarrow import fs

from recsys.columns import CANDIDATES, INTERACTIONS, ITEM_ID, ITEMS, QUARANTINE, REJECTED_AT, TIMESTAMP, USER_ID, USERS
from recsys.errors import InputError
from recsys.forgetting.forgotten import named_of, read_forgotten, without_lines_of
from recsys.forgetting.sought import Sought
from recsys.storage.delta import data_files
from recsys.storage.files import file_aside, write_json
from recsys.storage.intact import note_write
from recsys.storage.purge import purge
from recsys.storage.remote import filesystem
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import commit_metadata, latest_version, scan, table_path

_ROWS: Final = 200_000  # in memory at once


def own_tables(root: str) -> list[str]:
    """Names of the tables that are read from the sources, the log last."""
    return [name for name in (USERS, ITEMS, QUARANTINE, INTERACTIONS) if latest_version(root, name) is not None]


def candidate_tables(root: str) -> list[str]:
    """Names of the candidate tables of all configurations that share a warehouse."""
    return [name for name in candidate_folders(root) if latest_version(root, name) is not None]


def candidate_folders(root: str) -> list[str]:
    """Names of the folders of candidate tables, and of those that a first night has built and not published."""
    store, folder = filesystem(root.rstrip("/"))
    inside = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(info.base_name for info in inside if info.type == fs.FileType.Directory)
    return [name for name in names if name == CANDIDATES or name.startswith(f"{CANDIDATES}-")]


def users_gone(root: str, before: datetime) -> frozenset[str]:
    """Users whose last event is before a moment.

    Raises
    ------
    InputError
        The log has no times.
    """
    if latest_version(root, INTERACTIONS) is None:
        return frozenset()
    last = scan(root, INTERACTIONS).group_by(USER_ID).agg(pl.col(TIMESTAMP).max()).collect(engine="streaming")
    if len(last) and last[TIMESTAMP].null_count() == len(last):
        raise InputError(f"The log in {root} has no times, so nobody can say what is before {before:%Y-%m-%d}.")
    return frozenset(last.filter(pl.col(TIMESTAMP) < before)[USER_ID].cast(pl.String))


def remove_from_table(root: str, table: str, sought: Sought) -> int:
    """Rewrite a table without what is sought, and take its older versions away; returns the rows that went."""
    rows = count(root, table, sought)
    if rows:
        _rewrite(root, table, sought)
    purge(table_path(root, table), commit_metadata(root, table), shared=False)
    note_write(table_path(root, table))
    return rows


def count(root: str, table: str, sought: Sought) -> int:
    """Rows of a table's newest version that go."""
    if table == QUARANTINE:
        return sum(len(frame) - len(_kept(table, sought, frame)) for frame in _frames(root, table))
    theirs = scan(root, table).filter(sought.rows(_kind(table)))
    return int(theirs.select(pl.len()).collect(engine="streaming").item())


def drop_unpublished(root: str, name: str) -> int:
    """Delete candidates that were built and have no table yet; returns the number of files."""
    store, folder = filesystem(table_path(root, name))
    files = [info for info in store.get_file_info(fs.FileSelector(folder)) if info.base_name.endswith(".parquet")]
    for info in files:
        store.delete_file(info.path)
    return len(files)


def unknown(root: str, sought: Sought) -> list[tuple[str, str]]:
    """Ids that neither a table nor the list of what is forgotten knows, each after "User" or "Item"."""
    held, tables = read_forgotten(root), [*candidate_tables(root), *own_tables(root)]
    missing = []
    for what, column, ids in (("User", USER_ID, sought.users), ("Item", ITEM_ID, sought.items)):
        left = set(ids)
        if held is not None:
            left -= {one for one in ids if (one in held if column == USER_ID else held.has_item(one))}
        for table in tables:
            if left and table != QUARANTINE and column in (rows := scan(root, table)).collect_schema():
                theirs = pl.col(column).cast(pl.String)
                known = pl.Series(sorted(left), dtype=pl.String).implode()
                left -= set(
                    rows.select(theirs).filter(theirs.is_in(known)).unique().collect(engine="streaming")[column]
                )
        if left and QUARANTINE in tables:
            for frame in _frames(root, QUARANTINE):
                left -= named_of(frame, left, users=column == USER_ID)
        missing += [(what, one) for one in sorted(left)]
    return missing


def clean_states(states: Path, sought: Sought, *, dry_run: bool = False) -> int:
    """Take what quotes users or items out of the records of nights; returns the number of changed records.

    Of an item every example goes that names it. Where events before a moment go, so do the examples of the nights
    before it.
    """
    changed = 0
    for path in sorted(states.glob("*.json")):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        cleaned = _without_examples(state, sought, _is_old(state, sought.before))
        if cleaned != state:
            changed += 1
            if not dry_run:
                with file_aside(path) as aside:
                    write_json(aside, cleaned)
    return changed


def _kind(table: str) -> str:
    return CANDIDATES if table.startswith(CANDIDATES) else table


def _frames(root: str, table: str) -> Iterator[pl.DataFrame]:
    """A table's rows; candidates in the order in which they were published."""
    rows = scan(root, table)
    if table.startswith(CANDIDATES):
        files = data_files(DeltaTable(table_path(root, table)))
        rows = pl.scan_parquet(files, glob=False) if files else rows
    yield from rows.collect_batches(chunk_size=_ROWS, maintain_order=True)


def _kept(table: str, sought: Sought, frame: pl.DataFrame) -> pl.DataFrame:
    if table != QUARANTINE:
        return frame.filter(~sought.rows(_kind(table)))
    kept = without_lines_of(sought, frame)
    return kept if sought.before is None else kept.filter(pl.col(REJECTED_AT) >= sought.before)


def _rewrite(root: str, table: str, sought: Sought) -> None:
    overwrite_streamed(
        root,
        table,
        dict(scan(root, table).collect_schema()),
        (_kept(table, sought, frame) for frame in _frames(root, table)),
        sorted_by=USER_ID if table.startswith(CANDIDATES) else None,
        metadata=commit_metadata(root, table),
    )


def _is_old(state: Any, before: datetime | None) -> bool:
    try:
        return before is not None and datetime.fromisoformat(state["started"]) < before
    except (KeyError, TypeError, ValueError):
        return False


def _without_examples(value: Any, sought: Sought, old: bool) -> Any:
    """A tree of plain values without the mappings that are about a user who goes, or that name an item that goes."""
    if isinstance(value, dict):
        return {key: _without_examples(inner, sought, old) for key, inner in value.items()}
    if isinstance(value, list):
        kept = [inner for inner in value if not (isinstance(inner, dict) and _goes(inner, sought, old))]
        return [_without_examples(inner, sought, old) for inner in kept]
    return value


def _goes(entry: dict[str, Any], sought: Sought, old: bool) -> bool:
    if USER_ID not in entry:
        return False
    return old or str(entry[USER_ID]) in sought.users or any(text in sought.items for text in _texts(entry))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)
