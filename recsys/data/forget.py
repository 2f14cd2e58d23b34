"""Remove users from a warehouse, so that no file of its tables holds them, and keep them out.

The list of forgotten users is written first: a kill at any later point leaves a warehouse in which the same command
goes on. Tables are rewritten without the users' rows in one commit each; then the versions before it go, with their
data files and commits, for they still held them.

Bundles hold no users. MLflow's runs do: samples of candidates and examples of at most 20 users each, and in
evaluations the values of every test user. The warehouse's own copies of those are cleaned by the command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable
from pyarrow import fs

from recsys.columns import CANDIDATES, INTERACTIONS, QUARANTINE, USER_ID, USERS
from recsys.data.forgotten import add_forgotten, read_forgotten, without_lines_of
from recsys.data.log import home_of
from recsys.errors import InputError
from recsys.storage.artefacts import remove_all
from recsys.storage.delta import data_files
from recsys.storage.files import file_aside, write_json
from recsys.storage.intact import note_write
from recsys.storage.purge import purge
from recsys.storage.remote import filesystem
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import commit_metadata, latest_version, scan, table_path
from recsys.tracking.spool import drop_quotes

_ROWS: Final = 200_000  # in memory at once


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetReport:
    """Counts of removed rows; JSON-friendly."""

    users: int
    removed: dict[str, int]  # rows by table
    run_states: int  # records of nights from which examples were taken out
    unsent: int  # records that MLflow has not taken yet and that quoted users


def forget(root: str, users: Sequence[str], states: Path, now: datetime | None = None) -> ForgetReport:
    """Remove users from every table of a warehouse and from the records of nights, and keep them out.

    Older versions of these tables are removed, too.

    Parameters
    ----------
    users
        Ids as text.
    states
        Folder of the records of nights.

    Raises
    ------
    InputError
        A user is in no table; nothing is removed then.
    RecsysError
        A table is damaged, or another process has written it in the meantime.
    """
    wanted = sorted(set(users))
    tables = [name for name in (INTERACTIONS, USERS, QUARANTINE) if latest_version(root, name) is not None]
    tables += candidate_tables(root)
    counts = {table: _count(root, table, wanted) for table in tables}
    _need_known(root, wanted, tables)
    add_forgotten(root, wanted, now or datetime.now(UTC))
    for table, rows in counts.items():
        if rows:
            _rewrite(root, table, wanted)
        purge(table_path(root, table), commit_metadata(root, table), shared=False)
        note_write(table_path(root, table))
    _drop_unpublished(root)
    remove_all(home_of(root))  # prepared data hold the users' events; the next step makes them anew
    cleaned = sum(_clean_state(path, set(wanted)) for path in sorted(states.glob("*.json")))
    unsent = drop_quotes(states / "unsent")
    return ForgetReport(users=len(wanted), removed=counts, run_states=cleaned, unsent=unsent)


def candidate_tables(root: str) -> list[str]:
    """Names of the candidate tables of all configurations that share a warehouse."""
    return [name for name in _candidate_folders(root) if latest_version(root, name) is not None]


def _candidate_folders(root: str) -> list[str]:
    store, folder = filesystem(root.rstrip("/"))
    inside = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(info.base_name for info in inside if info.type == fs.FileType.Directory)
    return [name for name in names if name == CANDIDATES or name.startswith(f"{CANDIDATES}-")]


def _drop_unpublished(root: str) -> None:
    """Delete candidates that were built and have no table yet; beside a table, cleaning it up does."""
    for name in _candidate_folders(root):
        if latest_version(root, name) is None:
            store, folder = filesystem(table_path(root, name))
            for info in store.get_file_info(fs.FileSelector(folder)):
                if info.base_name.endswith(".parquet"):
                    store.delete_file(info.path)


def _need_known(root: str, users: Collection[str], tables: Sequence[str]) -> None:
    known = read_forgotten(root)
    for user in users:
        if not (known is not None and user in known) and not any(_count(root, table, [user]) for table in tables):
            raise InputError(f"User {user!r} is in no table of {root}; check the id. Nothing was removed, for no user.")


def _count(root: str, table: str, users: Sequence[str]) -> int:
    if table == QUARANTINE:
        return sum(len(frame) - len(without_lines_of(users, frame)) for frame in _frames(root, table))
    theirs = scan(root, table).filter(pl.col(USER_ID).cast(pl.String).is_in(users))
    return int(theirs.select(pl.len()).collect(engine="streaming").item())


def _frames(root: str, table: str) -> Iterator[pl.DataFrame]:
    """A table's rows; candidates in the order in which they were published."""
    rows = scan(root, table)
    if table.startswith(CANDIDATES):
        files = data_files(DeltaTable(table_path(root, table)))
        rows = pl.scan_parquet(files, glob=False) if files else rows
    yield from rows.collect_batches(chunk_size=_ROWS, maintain_order=True)


def _other_users(users: Sequence[str], frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(~pl.col(USER_ID).cast(pl.String).is_in(users))


def _rewrite(root: str, table: str, users: Sequence[str]) -> None:
    others: Callable[[Sequence[str], pl.DataFrame], pl.DataFrame]
    others = without_lines_of if table == QUARANTINE else _other_users
    overwrite_streamed(
        root,
        table,
        dict(scan(root, table).collect_schema()),
        (others(users, frame) for frame in _frames(root, table)),
        sorted_by=USER_ID if table.startswith(CANDIDATES) else None,
        metadata=commit_metadata(root, table),
    )


def _clean_state(path: Path, users: Collection[str]) -> bool:
    """Take the examples of these users out of a night's record."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    cleaned = _without_examples(state, users)
    if cleaned == state:
        return False
    with file_aside(path) as aside:
        write_json(aside, cleaned)
    return True


def _without_examples(value: Any, users: Collection[str]) -> Any:
    """A tree of plain values without the mappings that are about one of these users."""
    if isinstance(value, dict):
        return {key: _without_examples(inner, users) for key, inner in value.items()}
    if isinstance(value, list):
        kept = [inner for inner in value if not (isinstance(inner, dict) and str(inner.get(USER_ID)) in users)]
        return [_without_examples(inner, users) for inner in kept]
    return value
