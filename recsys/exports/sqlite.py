"""A copy as a table of an SQLite database, which may hold others.

Rows are loaded beside in short transactions, so that readers wait for moments, and switched in by one. Lists are JSON
text, times are ISO 8601 in UTC, and a score that is no number is NULL. The table `recsys_exports` says which copy a
table is. Views read a table by its name and see the new one; a trigger or an index of one's own is refused, as it would
stay with the old rows.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import polars as pl

from recsys.errors import InputError, RecsysError, first_line
from recsys.exports.copies import Copy
from recsys.exports.rows import Rows
from recsys.exports.sql import Database, Found, Key, SqlSink
from recsys.exports.writers import with_words
from recsys.settings import SqliteExportSettings
from recsys.storage.files import refusal
from recsys.storage.locks import Held, lock_file

NOTES: Final = "recsys_exports"
WAIT_SECONDS: Final = 60.0  # for readers and other writers
_INDEX: Final = "recsys_index_"  # begins the names of our indexes
_TYPES: Final = {pl.String: "text", pl.Int64: "integer", pl.Int32: "integer", pl.Float32: "real", pl.Float64: "real"}


class SqliteSink(SqlSink):
    """A table of SQLite; see the module."""

    kind = "sqlite"
    keys = SqliteExportSettings

    @property
    def shape(self) -> SqliteExportSettings:
        assert isinstance(self.settings, SqliteExportSettings)
        return self.settings

    @property
    def place(self) -> str:
        return f"{self.shape.path} {self.shape.table}"

    def clean(self) -> None:
        with self._connection(writing=True) as connection:
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")

    @contextlib.contextmanager
    def database(self, *, writing: bool) -> Iterator[Database]:
        with self._connection(writing=writing) as connection:
            database = _Sqlite(connection)
            database.begin(writing)
            try:
                yield database
                connection.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("rollback")
                raise

    @contextlib.contextmanager
    def _connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        path = Path(self.shape.path)
        key = f"{self.section}.path"
        if "://" in self.shape.path:
            raise InputError(f"{key} = {self.shape.path} is a URL; an SQLite database is a local file.")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise InputError(f"{key} = {path}: {above} is a file, no folder; choose another path.")
        try:
            with contextlib.ExitStack() as stack:
                if writing:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(lock_file(path.with_name(f".{path.name}.export-lock")))
                name = str(path) if writing or path.exists() else ":memory:"
                connection = sqlite3.connect(name, timeout=WAIT_SECONDS, isolation_level=None)
                stack.enter_context(contextlib.closing(connection))
                yield connection
        except Held:
            raise RecsysError(f"Another export to {self.place} is running; wait for it to end.") from None
        except sqlite3.DatabaseError as error:
            text = refusal(error) or first_line(error)
            if "not a database" in text:
                raise InputError(f"{key} = {path} is not an SQLite database; choose another path.") from None
            if "locked" in text:
                raise RecsysError(
                    f"{self.place}: other programs did not let go of the database for {WAIT_SECONDS:g} seconds; "
                    "nothing was changed."
                ) from TimeoutError(text)
            raise RecsysError(f"The export to {self.place} failed, and nothing was changed: {text}.") from None
        except OSError as error:
            raise RecsysError(f"The export to {self.place} cannot be written: {error.strerror}.") from error

    def refuse(self, database: Database) -> None:
        assert isinstance(database, _Sqlite)
        lost = database.lost(self.shape.table)
        if lost:
            raise InputError(
                f"{self.place}: {lost} hangs on the table and would stay with the old rows when the new table takes "
                "its place; drop it."
            )


class _Sqlite:
    """A transaction, which loading cuts into several."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def begin(self, writing: bool) -> None:
        self.connection.execute("pragma legacy_alter_table = on")  # renaming a table leaves views alone
        self.connection.execute("begin immediate" if writing else "begin")
        if writing:
            self.connection.execute(f"create table if not exists {NOTES} (name text primary key, copy text not null)")

    def find(self, table: str) -> Found | None:
        rows = self.connection.execute(
            "select type from sqlite_master where lower(name) = lower(?)", (table,)
        ).fetchall()
        if not rows:
            return None
        what, copy = rows[0][0], None
        if self.connection.execute("select 1 from sqlite_master where name = ?", (NOTES,)).fetchall():
            noted = self.connection.execute(f"select copy from {NOTES} where name = ?", (table,)).fetchone()
            copy = Copy.read(noted[0]) if noted else None
        columns = [row[1] for row in self.connection.execute(f"pragma table_info({_name(table)})")]
        empty = what == "table" and not self.connection.execute(f"select 1 from {_name(table)} limit 1").fetchall()
        return Found(what=what, columns=columns, copy=copy, empty=empty)

    def lost(self, table: str) -> str | None:
        """Return in words the things that a switch would leave behind."""
        row = self.connection.execute(
            "select 'the ' || type || ' ' || name from sqlite_master where lower(tbl_name) = lower(?) and "
            "(type = 'trigger' or (type = 'index' and sql is not null and name not like ? || '%')) limit 1",
            (table, _INDEX),
        ).fetchone()
        return row[0] if row else None

    def create(self, table: str, empty: pl.DataFrame, key: Key, copy: Copy) -> None:
        columns = [f"{_name(name)} {_TYPES.get(type(dtype), 'text')}" for name, dtype in empty.schema.items()]
        keyed = ", ".join(map(_name, key.columns))
        if key.unique:
            columns.append(f"primary key ({keyed})")
        self.connection.execute(f"create table {_name(table)} ({', '.join(columns)})")
        if key.columns and not key.unique:
            self.connection.execute(f"create index {_INDEX}{uuid.uuid4().hex} on {_name(table)} ({keyed})")
        self.connection.execute(f"insert or replace into {NOTES} values (?, ?)", (table, copy.text()))

    def load(self, table: str, empty: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> int:
        count = 0
        insert = f"insert into {_name(table)} values ({', '.join('?' * len(empty.columns))})"
        for frame in frames:
            rows = _plain(frame).rows()
            self.connection.executemany(insert, rows)
            self.connection.execute("commit")  # readers get in between
            self.connection.execute("begin immediate")
            count += len(rows)
        return count

    def finish(self, table: str, key: Key, like: str | None) -> None:
        """Nothing is left to do: the index grew with the rows, and SQLite knows no rights."""

    def replace(self, table: str, user: str, users: pl.Series, rows: Rows, copy: Copy) -> int:
        given = ((value,) for value in users)
        self.connection.executemany(f"delete from {_name(table)} where {_name(user)} = ?", given)
        insert, count = f"insert into {_name(table)} values ({', '.join('?' * len(rows.empty.columns))})", 0
        for frame in rows.frames:
            count += len(frame)
            self.connection.executemany(insert, _plain(frame).rows())
        self.connection.execute(f"update {NOTES} set copy = ? where name = ?", (copy.text(), table))
        return count

    def count(self, table: str, columns: Mapping[str, tuple[str, bool]], ids: Mapping[str, Collection[str]]) -> int:
        tests, given = [], []
        for of, (column, lists) in columns.items():
            known = "in (select value from json_each(?))"
            one = f"cast({_name(column)} as text) {known}"
            many = f"exists (select 1 from json_each({_name(column)}) as one where cast(one.value as text) {known})"
            tests.append(many if lists else one)
            given.append(json.dumps(sorted(ids[of])))
        query = f"select count(*) from {_name(table)} where {' or '.join(tests)}"
        return int(self.connection.execute(query, given).fetchone()[0])

    def lock(self, table: str) -> None:
        """The end of the transaction waits for readers."""

    def rename(self, table: str, name: str) -> None:
        self.connection.execute(f"alter table {_name(table)} rename to {_name(name)}")
        self.connection.execute(f"delete from {NOTES} where name = ?", (name,))
        self.connection.execute(f"update {NOTES} set name = ? where name = ?", (name, table))

    def drop(self, table: str) -> None:
        self.connection.execute(f"drop table if exists {_name(table)}")
        self.connection.execute(f"delete from {NOTES} where name = ?", (table,))


def _name(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Times as text, lists as JSON text."""
    frame = with_words(frame)
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return frame.with_columns(
        pl.struct(pl.col(name).alias("l")).struct.json_encode().str.slice(len('{"l":')).str.head(-1).alias(name)
        for name in lists
    )
