"""A copy as a table of a database: loaded beside the one that readers see, and switched in by renaming it.

The former table stays, as `<table>__former`, for `rollback`. The new one is loaded as `<table>__staging`. A database
says the rest: how a table is made and loaded, and where it keeps what a copy is (`Copy`).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import polars as pl

from recsys.columns import ITEM_ID, RANK, USER_ID
from recsys.errors import InputError
from recsys.exports.base import CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.copies import Copy, check_newer, check_owner, copy_of, is_held
from recsys.exports.rows import Rows, Shape, chosen_columns, rows_of
from recsys.forgetting.sought import Sought


class TableShape(Shape, Protocol):
    """Settings of a table."""

    @property
    def table(self) -> str:
        """Name of the table that readers see."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something that bears a name in the database: its kind in words, its columns, and the copy that it says it is."""

    what: str  # "table", "view", ...
    columns: list[str]
    copy: Copy | None
    empty: bool = False  # whether it is a table without rows


@dataclass(frozen=True, kw_only=True)
class Key:
    """Columns by which readers find rows: the user first."""

    columns: list[str]
    unique: bool  # whether they tell rows apart


class Database(Protocol):
    """An open database, inside of a transaction that ends with the block that opened it."""

    def find(self, table: str) -> Found | None:
        """Return the object of a name, if there is one."""

    def create(self, table: str, empty: pl.DataFrame, key: Key, copy: Copy) -> None:
        """Make a table for rows, and note which copy it is."""

    def load(self, table: str, empty: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> int:
        """Add rows; returns their number."""

    def finish(self, table: str, key: Key, like: str | None) -> None:
        """Index a loaded table, and give it the rights of the table `like`."""

    def replace(self, table: str, user: str, users: pl.Series, rows: Rows, copy: Copy) -> int:
        """Delete the rows of users, whom the column `user` names, add rows, and note which copy it is now.

        Returns the number of new rows.
        """

    def count(self, table: str, columns: Mapping[str, tuple[str, bool]], ids: Mapping[str, Collection[str]]) -> int:
        """Count rows of which a column is, or holds, an id.

        Parameters
        ----------
        columns
            Column and whether it holds lists, by what it is of.
        ids
            As text, by the same.
        """

    def lock(self, table: str) -> None:
        """Wait until no reader uses a table, and keep new ones waiting until the transaction ends."""

    def rename(self, table: str, name: str) -> None:
        """Give a table another name."""

    def drop(self, table: str) -> None:
        """Delete a table, if it is there."""


class SqlSink(Sink):
    """A table; see the module."""

    @property
    @abstractmethod
    def shape(self) -> TableShape:
        """The settings of the table."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The table in words, without a secret."""

    @abstractmethod
    def database(self, *, writing: bool) -> AbstractContextManager[Database]:
        """Open the database and a transaction; commit at the end of the block, undo all if it fails.

        Raises
        ------
        InputError
            The address or the login is wrong.
        RecsysError
            The database cannot be reached, or another export is running; one sentence for all that it says.
        """

    def clean(self) -> None:
        """Overwrite what the database's files still hold of tables that are gone; raises as `database`."""

    def refuse(self, database: Database) -> None:
        """Refuse a place where rights are lacking, or where a switch would lose something; raises as `check`."""

    @property
    def former(self) -> str:
        """Name of the table that `rollback` brings back."""
        return f"{self.shape.table}__former"

    @property
    def staging(self) -> str:
        """Name of the table that is being loaded."""
        return f"{self.shape.table}__staging"

    def check(self) -> None:
        names = list(chosen_columns(self.shape, self.section).values())
        with self.database(writing=False) as database:
            self._seen(database, names)

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        rows = rows_of(candidates, self.shape, section=self.section)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        key = self._key()
        with self.database(writing=True) as database:
            seen = self._seen(database, rows.empty.columns)
            held = None if seen is None else seen.copy
            check_newer(held, copy, self.place)
            database.drop(self.staging)  # what a killed export left
            database.create(self.staging, rows.empty, key, copy)
            count = database.load(self.staging, rows.empty, rows.frames)
            database.finish(self.staging, key, None if seen is None else self.shape.table)
            if seen is not None:
                database.lock(self.shape.table)
            if not keep:
                database.drop(self.former)
            if seen is not None:
                self._put_aside(database, keep and held is not None and not held.is_release_of(copy))
            database.rename(self.staging, self.shape.table)
        if not keep:
            self.clean()
        return self._report(rows, count, candidates, began)

    def update(self, candidates: CandidateTable, users: pl.Series, since: CandidateTable) -> ExportReport:
        began = time.perf_counter()
        columns = chosen_columns(self.shape, self.section)
        rows = rows_of(candidates, self.shape, section=self.section, users=users)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        count = None
        if USER_ID in columns:
            with self.database(writing=True) as database:
                seen = self._seen(database, rows.empty.columns)
                check_newer(None if seen is None else seen.copy, copy, self.place)
                same = seen is not None and is_held(seen.copy, since, self.settings)
                if seen is not None and same and seen.columns == rows.empty.columns:  # nobody has changed it
                    count = database.replace(self.shape.table, columns[USER_ID], users, rows, copy)
        if count is None:
            return self.write(candidates)
        return replace(self._report(rows, count, candidates, began), updated=len(users))

    def _report(self, rows: Rows, count: int, candidates: CandidateTable, began: float) -> ExportReport:
        """Report what was written since `began`, by `time.perf_counter`."""
        return ExportReport(
            path=self.place,
            rows=count,
            format=self.kind,
            layout=self.shape.layout,
            columns=rows.empty.columns,
            version=candidates.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        with self.database(writing=True) as database:
            seen = self._seen(database)
            if seen is None or seen.copy is None:
                raise InputError(f"No export to {self.place} was made yet, so none can be taken back.")
            before = database.find(self.former)
            if before is None or before.copy is None:
                raise InputError(
                    f"{self.place} keeps no copy older than that of version {seen.copy.version}; "
                    "`recsys export CONFIG` writes the newest candidate table."
                )
            database.lock(self.shape.table)
            database.drop(self.shape.table)
            database.rename(self.former, self.shape.table)
        return RollbackReport(path=self.place, version=before.copy.version, instead=seen.copy.version, kind=self.kind)

    def present(self) -> bool:
        seen = self.held()
        return seen is not None and seen.name == self.name

    def held(self) -> Copy | None:
        with self.database(writing=False) as database:
            seen = database.find(self.shape.table)
        return None if seen is None else seen.copy

    def count(self, sought: Sought) -> int | None:
        columns, wide = chosen_columns(self.shape, self.section), self.shape.layout == "wide"
        asked = {USER_ID: sought.users, ITEM_ID: sought.items}
        ids = {name: some for name, some in asked.items() if some and name in columns}
        named = {name: (columns[name], wide and name == ITEM_ID) for name in ids}
        found = 0
        with self.database(writing=False) as database:
            for table in (self.shape.table, self.former, self.staging):
                seen = database.find(table)
                if ids and seen is not None and seen.copy is not None and seen.copy.name == self.name:
                    found += database.count(table, named, ids)
        return found

    def _put_aside(self, database: Database, as_former: bool) -> None:
        """Take away the table that readers see: the former one from now on, or none's."""
        if as_former:
            database.drop(self.former)
            database.rename(self.shape.table, self.former)
        else:  # the same release again, or no copy of ours: the way back stays
            database.drop(self.shape.table)

    def _key(self) -> Key:
        columns = chosen_columns(self.shape, self.section)
        ours = [USER_ID] if self.shape.layout == "wide" else [USER_ID, RANK]
        if USER_ID not in columns:
            return Key(columns=[], unique=False)
        found = [columns[name] for name in ours if name in columns]
        return Key(columns=found, unique=len(found) == len(ours))

    def _seen(self, database: Database, names: list[str] | None = None) -> Found | None:
        """Return the object that readers see, where it is a copy of ours or an empty place for one; else an error."""
        table = f"{self.section}.table"
        for name in (self.shape.table, self.former, self.staging):
            found = database.find(name)
            if found is not None and found.what != "table":
                raise InputError(
                    f"{self.place}: {name} is a {found.what}, not a table; remove it, or choose another {table}."
                )
            if found is not None and found.copy is None and name != self.shape.table:
                raise InputError(
                    f"{self.place}: {name} is no table of an export; rename it, or choose another {table}."
                )
        seen = database.find(self.shape.table)
        if seen is not None and seen.copy is None and names is not None:  # an empty one may be ours to fill
            if seen.columns != names:
                raise InputError(
                    f"{self.place} is a table that no export has made, with the columns {', '.join(seen.columns)} and "
                    f"not {', '.join(names)}; rename it, or choose another {table}."
                )
            if not seen.empty:
                raise InputError(
                    f"{self.place} is a table that no export has made, and it has rows; rename or empty it, or choose "
                    f"another {table}."
                )
        check_owner(None if seen is None else seen.copy, self.name, self.place, table)
        self.refuse(database)
        return seen
