"""Connections to databases that only read: columns and rows of a query as Arrow, errors as one sentence.

A driver is a class; `_DRIVERS` says which one reads which kind. Each reads one picture of the data and cannot change
it. The value that a reading begins at is bound as a parameter.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import pyarrow as pa

from recsys.errors import InputError, RecsysError, first_line
from recsys.reading.reasons import BAD_BYTES, DEFECT
from recsys.reading.watermark import Watermark, no_order
from recsys.storage import postgresql
from recsys.storage.addresses import masked
from recsys.storage.files import refusal

ROWS: Final = 50_000  # a batch
WAIT_SECONDS: Final = 30.0  # for programs that write to an SQLite file
_TOLD: Final = re.compile(r"^\[libpq\] .*?(?:ERROR|FATAL|PANIC):\s+")  # before a server's own words
_GONE: Final = re.compile(r"(?i)connection|closed|terminat|shut|recovery|timeout|timed out|canceling|SSL|network|EOF")


class Driver(ABC):
    """A connection.

    Attributes
    ----------
    name
        Where the rows come from, without secrets.
    key
        The section of its settings.
    asked
        Which of the section's keys names the rows, "query" or "table".
    """

    kind: ClassVar[str]
    quotes: ClassVar[str] = '"'  # around names
    text: ClassVar[str] = "varchar"  # the type that any value is cast to where it is none of Arrow's plain ones

    def __init__(self, name: str, key: str, asked: str) -> None:
        self.name, self.key, self.asked = name, key, asked

    @contextlib.contextmanager
    @abstractmethod
    def connected(self, address: str) -> Iterator[None]:
        """Connect for the block; `address` has its secrets, or is a file's path."""

    @abstractmethod
    def fields(self, query: str) -> pa.Schema:
        """Names and types of a query's columns."""

    @abstractmethod
    def rows(
        self, query: str, since: Watermark | None = None, watermark: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a query, in batches.

        Parameters
        ----------
        since
            Value of the query's only parameter, as `parameter` wrote it; None: it has none.
        watermark
            A column whose values keep the types that the database gives them.
        """

    def parameter(self, since: Watermark) -> str:
        """The expression that stands for a bound value."""
        return "?"

    def quoted(self, name: str) -> str:
        """The name as an identifier."""
        return f"{self.quotes}{name.replace(self.quotes, self.quotes * 2)}{self.quotes}"

    def selected(self, field: pa.Field) -> str:
        """The column in a list of columns, as text where its type is none that is read."""
        name = self.quoted(field.name)
        return name if is_plain(field.type) else f"cast({name} as {self.text}) as {name}"

    def batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        """Batches of a reader, with what the database says meanwhile as one sentence."""
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException) as error:  # what Arrow makes of an error, whose code is lost
                said = masked(_TOLD.sub("", first_line(error)))
                if _GONE.search(said):
                    raise RecsysError(f"Reading {self.name} failed: {said}.") from ConnectionError(said)
                raise self.wrong(said) from None
            yield batch

    def wrong(self, said: str) -> InputError:
        """Return the error for a query that the database does not take."""
        what = ", which must be one statement that gives rows, such as select" if self.asked == "query" else ""
        return InputError(f"{self.name}: {said.rstrip('. ')}; check {self.key}.{self.asked}{what}.")


def is_plain(dtype: pa.DataType) -> bool:
    """Return whether Parquet and the readers of this package take a type as it is."""
    if isinstance(dtype, pa.BaseExtensionType) or pa.types.is_interval(dtype):
        return False
    return all(is_plain(dtype.field(place).type) for place in range(dtype.num_fields))


def open_driver(kind: str, name: str, key: str, asked: str) -> Driver:
    """The driver of a kind of database; see `Driver`.

    Raises
    ------
    InputError
        Its library is not installed.
    """
    driver = _DRIVERS[kind](name, key, asked)
    if isinstance(driver, _Adbc | _Duckdb):
        try:
            import_module(driver.module)
        except ModuleNotFoundError as error:
            needed = f"{key}.source needs the package {error.name}"
            raise InputError(f"{needed}; run `pip install {driver.package}`.") from error
    return driver


class _Adbc(Driver):
    """A server by its ADBC driver."""

    module: ClassVar[str]

    @property
    def package(self) -> str:
        return self.module.partition(".")[0].replace("_", "-")

    def connect(self, address: str) -> Any:
        """Return the driver's connection."""
        return import_module(self.module).connect(address, autocommit=True)

    def begin(self) -> None:
        """Begin to read."""

    def refusal(self, error: Exception, address: str) -> RecsysError:
        """Return what to raise for the driver's error."""
        return self.wrong(masked(first_line(error)))

    @contextlib.contextmanager
    def connected(self, address: str) -> Iterator[None]:
        from adbc_driver_manager import Error

        try:
            with contextlib.closing(self.connect(address)) as self.connection:
                self.begin()
                yield
        except Error as error:
            raised = self.refusal(error, address)
            passes = not isinstance(raised, InputError)
            raise raised from (ConnectionError(type(error).__name__) if passes else None)

    def do(self, statement: str, values: Sequence[Any] | None = None) -> list[Any]:
        """Run a statement; its rows."""
        with contextlib.closing(self.connection.cursor()) as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def fields(self, query: str) -> pa.Schema:
        with contextlib.closing(self.connection.cursor()) as cursor:
            cursor.execute(f"{query} limit 0")
            return cursor.fetch_record_batch().schema

    def rows(
        self, query: str, since: Watermark | None = None, watermark: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        with contextlib.closing(self.connection.cursor()) as cursor:
            cursor.execute(query, None if since is None else (since.bound,))
            yield from self.batches(cursor.fetch_record_batch())


class _Postgresql(_Adbc):
    kind = "postgresql"
    module = "adbc_driver_postgresql.dbapi"
    text = "text"
    _setting: ClassVar = "recsys.since"
    _types: ClassVar = {
        "integer": "bigint", "float": "double precision", "text": "text", "date": "date",
        "time": "timestamp", "moment": "timestamptz",
    }  # fmt: skip

    def connect(self, address: str) -> Any:
        return super().connect(postgresql.with_limits(address))

    def begin(self) -> None:
        self.do("begin isolation level repeatable read read only")

    def parameter(self, since: Watermark) -> str:
        # not a parameter of the query itself: with one, the driver holds all rows at once
        self.do(f"select set_config('{self._setting}', $1, true)", (str(since),))
        value = f"cast(current_setting('{self._setting}') as {self._types[since.kind]})"
        return f'{value} collate "C"' if since.kind == "text" else value  # the order of bytes, as `Newest` has it

    def rows(
        self, query: str, since: Watermark | None = None, watermark: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        return super().rows(query)

    def selected(self, field: pa.Field) -> str:
        given, name = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode(), self.quoted(field.name)
        if given == "numeric":
            return f"{name}::{_numeric(field)} as {name}"
        if is_plain(field.type) and given not in ("bpchar", "money"):  # padded with blanks; in cents
            return name
        unknown = re.fullmatch(r"unnamed<oid:(\d+)>", given)  # an array of a type such as an enum has no name either
        array = pa.types.is_list(field.type) or (
            unknown and self.do(f"select typcategory = 'A' from pg_type where oid = {unknown[1]}") == [(True,)]
        )
        return f"{name}::text{'[]' if array else ''} as {name}"

    def refusal(self, error: Exception, address: str) -> RecsysError:
        unreached = postgresql.no_connection(error, address, self.name, f"{self.key}.source")
        if unreached is not None:
            return unreached
        said = postgresql.said(error, address)
        if not postgresql.lasts(error):
            return RecsysError(f"Reading {self.name} failed: {said}.")
        if postgresql.state_of(error) == "42501":
            return InputError(f"{self.name}: {said}; grant it to the user.")
        return self.wrong(said)


def _numeric(field: pa.Field) -> str:
    """PostgreSQL's type for a `numeric` column: exact for whole numbers that say so, else a float."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4 or (modifier - 4) & 0x7FF:  # 11 bits: digits after the point
        return "float8"
    return "bigint" if (modifier - 4) >> 16 <= 18 else "text"


class _Snowflake(_Adbc):  # not tested: there is no server of it to test with
    kind = "snowflake"
    module = "adbc_driver_snowflake.dbapi"

    def connect(self, address: str) -> Any:
        return super().connect(address.partition("://")[2])


class _Bigquery(_Adbc):  # not tested, as Snowflake
    kind = "bigquery"
    module = "adbc_driver_bigquery.dbapi"
    quotes = "`"
    text = "string"

    def connect(self, address: str) -> Any:
        parts = urlsplit(address)
        keys = {"adbc.bigquery.sql.project_id": parts.netloc, "adbc.bigquery.sql.dataset_id": parts.path.strip("/")}
        return import_module(self.module).connect({key: value for key, value in keys.items() if value}, autocommit=True)


class _Duckdb(Driver):
    kind = "duckdb"
    module: ClassVar[str] = "duckdb"
    package: ClassVar[str] = "duckdb"

    @contextlib.contextmanager
    def connected(self, address: str) -> Iterator[None]:
        import duckdb

        try:
            with contextlib.closing(duckdb.connect(address, read_only=True)) as self.connection:
                self.connection.execute("set timezone = 'UTC'")
                self.connection.execute("begin transaction")
                yield
        except duckdb.Error as error:
            said = first_line(error)
            if refusal(error):
                raise RecsysError(f"Reading {self.name} failed: {refusal(error)}.") from OSError(said)
            if "not a valid DuckDB" in said:
                raise InputError(
                    f"{self.name} is not a DuckDB database ({address}); check {self.key}.source."
                ) from None
            if "lock" in said.lower() or isinstance(error, duckdb.IOException | duckdb.ConnectionException):
                raise RecsysError(f"{self.name} cannot be opened: {said}.") from BlockingIOError(said)
            raise self.wrong(said) from None

    def fields(self, query: str) -> pa.Schema:
        with contextlib.closing(_arrow(self.connection.sql(f"{query} limit 0"))) as reader:
            return reader.schema

    def rows(
        self, query: str, since: Watermark | None = None, watermark: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        relation = self.connection.sql(query, params=None if since is None else [since.bound])
        with contextlib.closing(_arrow(relation)) as reader:
            yield from self.batches(reader)


def _arrow(relation: Any) -> Any:
    """A relation's rows; older versions of DuckDB call it otherwise."""
    reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
    return reader(ROWS)


class _Sqlite(Driver):
    """A file of SQLite, whose columns hold values of any type: all of them are read as text, as those of a CSV file."""

    kind = "sqlite"

    @contextlib.contextmanager
    def connected(self, address: str) -> Iterator[None]:
        try:
            uri = f"{Path(address).absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS, isolation_level=None)) as made:
                self.connection = made
                made.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
                made.execute("pragma query_only = on")
                made.execute("begin")
                yield
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._refusal(error, address) from _passing(error)

    def _refusal(self, error: Exception, path: str) -> RecsysError:
        said, code = first_line(error), getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return InputError(f"{self.name} is not a sound SQLite database ({path}): {said}; check {self.key}.source.")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RecsysError(
                f"{self.name}: another program did not let go of the database for {WAIT_SECONDS:g} seconds."
            )
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return RecsysError(f"Reading {self.name} failed: {said} ({path}).")
        return self.wrong(said)

    def fields(self, query: str) -> pa.Schema:
        cursor = self.connection.execute(f"{query} limit 0")
        return pa.schema([(column[0], pa.string()) for column in cursor.description])

    def rows(
        self, query: str, since: Watermark | None = None, watermark: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        cursor = self.connection.execute(query, () if since is None else (_plain(since.bound),))
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(ROWS):
            given = dict(zip(names, zip(*rows, strict=True), strict=True))
            texts = {name: [_word(value) for value in values] for name, values in given.items()}
            broken = [BAD_BYTES if any(map(_is_broken, row)) else None for row in zip(*texts.values(), strict=True)]
            arrays = {name: pa.array(map(_shown, values), pa.string()) for name, values in texts.items()}
            if watermark is not None:
                arrays[watermark] = self._typed(watermark, given[watermark])
            yield pa.record_batch({**arrays, DEFECT: pa.array(broken, pa.string())})

    def _typed(self, column: str, values: Sequence[Any]) -> pa.Array:
        try:
            return pa.array(values)
        except (pa.ArrowException, UnicodeError, OverflowError):
            kinds = sorted({type(value).__name__ for value in values})
            raise no_order(column, self.name, f"values of the kinds {' and '.join(kinds)}") from None


def _passing(error: Exception) -> OSError | None:
    codes = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR)
    return TimeoutError(str(error)) if getattr(error, "sqlite_errorcode", 0) & 0xFF in codes else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)


def _word(value: Any) -> str | None:
    """A value of SQLite as text; bytes are the text that old writers mean by them, and null where they are none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else repr(value)


def _is_broken(text: str | None) -> bool:
    return text is not None and not text.isascii() and any("\udc80" <= sign <= "\udcff" for sign in text)


def _shown(text: str | None) -> str | None:
    if text is None or not _is_broken(text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_DRIVERS: Final[dict[str, type[Driver]]] = {
    driver.kind: driver for driver in (_Postgresql, _Snowflake, _Bigquery, _Duckdb, _Sqlite)
}
