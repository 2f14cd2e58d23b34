"""Rows of a database, spooled batch by batch into a Parquet file, from which they are read as any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recsys.errors import InputError
from recsys.reading.drivers import Driver, open_driver
from recsys.reading.watermark import Newest, Watermark, kind_of, no_order
from recsys.settings.database import Queried, is_server
from recsys.storage.addresses import HIDDEN, masked
from recsys.storage.environment import expanded

if TYPE_CHECKING:
    from recsys.reading.sources import SourceFile

_MAGIC: Final = {"sqlite": (0, b"SQLite format 3\0"), "duckdb": (8, b"DUCK")}  # where a file says what it is
_SEEDS: Final = (1, 2)  # of two hashes of 64 bits
_LIMIT: Final = 1 << 64
# of a type, the first and the last moment from the year 1 to 9999, in its unit since 1970
_YEARS: Final = {
    "timestamp[us": (-62_135_596_800_000_000, 253_402_300_799_999_999),
    "date32[day": (-719_162, 2_932_896),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """Source of rows: the section of the settings, and an address that may name secrets or hold them."""

    key: str
    address: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """Rows of a database in a Parquet file."""

    path: Path
    columns: tuple[str, ...]  # of the query, also those that were not asked for
    digest: str  # sha256 (hex): of the rows in any order; where only newer ones are read, of how far that got
    newest: Watermark | None  # None: no watermark is asked for, or there was no row


def server_of(declared: str, key: str) -> tuple[str, str]:
    """The kind of a server by its address, and the address without secrets.

    Raises
    ------
    InputError
        A variable is not set, or the address is none of a known kind.
    """
    address = expanded(declared.strip(), f"{key}.source")
    if not is_server(address):
        raise InputError(
            f"{key}.source = {declared!r} stands for no address of a database, such as postgresql://user@host/database."
        )
    scheme, _, rest = masked(address).partition("?")[0].partition("://")
    kind = "postgresql" if scheme.lower() == "postgres" else scheme.lower()
    return kind, f"{kind}://{rest.removeprefix(f'{HIDDEN}@')}"


def rows_of(queried: Queried) -> str:
    """Return how a name says which rows of a database are meant: the table, or the query by its hash."""
    if queried.table is not None:
        return queried.table
    return f"query {hashlib.sha256(str(queried.query).strip().encode()).hexdigest()[:8]}"


def kind_of_file(path: Path) -> str | None:
    """Kind of database that a file is by its first bytes; None: it is none."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((kind for kind, (start, magic) in _MAGIC.items() if head[start:].startswith(magic)), None)


def spool(
    file: SourceFile,
    queried: Queried,
    path: Path,
    *,
    wanted: Collection[str] | None = None,
    watermark: str | None = None,
    since: Watermark | None = None,
) -> Spooled:
    """Write the rows of a database to `path`.

    Parameters
    ----------
    wanted
        Columns that are written; None: all.
    watermark, since
        A column that grows, and the value at which to begin; None: read all.

    Raises
    ------
    InputError
        The login, the query or the watermark is wrong, or a library is not installed.
    RecsysError
        The database cannot be reached, or is gone in the middle; its cause is an `OSError`, as it may come back.
    """
    assert file.database is not None
    asked = "query" if queried.table is None else "table"
    driver = open_driver(file.format, file.name, file.database.key, asked)
    address = expanded(file.database.address, f"{file.database.key}.source")
    with driver.connected(address):
        statement = f"select * from ({_statement(driver, queried)}\n) as recsys_rows"
        fields = driver.fields(statement)
        names = _distinct(driver, fields)
        if watermark is not None:
            _check_watermark(driver, fields, watermark)
        chosen = [field for field in fields if wanted is None or field.name in {*wanted, watermark}] or list(fields)
        selected = statement.replace("*", ", ".join(map(driver.selected, chosen)), 1)
        query = selected
        if watermark is not None and since is not None:
            column = driver.quoted(watermark)  # null: to be found and refused
            query = f"{selected} where {column} >= {driver.parameter(since)} or {column} is null"
        newest = Newest(watermark, file.name, since) if watermark is not None else None
        content = _Content()

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in map(_within_years, driver.rows(query, since, watermark)):
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                if newest is not None:
                    newest.add(frame[newest.column])
                else:
                    content.add(frame)
                yield batch

        _write(path, batches(), lambda: driver.fields(selected))
    if newest is None:
        return Spooled(path=path, columns=names, digest=content.digest, newest=None)
    reached = newest.watermark or since
    told = [file.name, watermark, None if reached is None else reached.to_json()]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return Spooled(path=path, columns=names, digest=digest, newest=newest.watermark)


class _Content:
    """A digest of rows that does not depend on their order: servers give the same rows in another one."""

    def __init__(self) -> None:
        self.sums, self.count, self.columns = [0, 0], 0, ""

    def add(self, frame: pl.DataFrame) -> None:
        self.columns = str(frame.schema)
        self.count += len(frame)
        for place, seed in enumerate(_SEEDS):
            halves = frame.hash_rows(seed=seed)
            high, low = (part.cast(pl.UInt64).sum() for part in (halves // (1 << 32), halves % (1 << 32)))
            self.sums[place] = (self.sums[place] + (int(high) << 32) + int(low)) % _LIMIT

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.sums, self.count, self.columns]).encode()).hexdigest()


def _within_years(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times outside of the years 1 to 9999, such as PostgreSQL's `infinity`, become null: Python has none of them."""
    for place, of in enumerate(batch.schema):
        years = _YEARS.get(str(of.type).partition(",")[0].rstrip("]"))
        if years is None:
            continue
        values = batch.column(place)
        whole = values.cast(pa.int32() if pa.types.is_date32(of.type) else pa.int64())
        first, last = (pa.scalar(value, whole.type) for value in years)
        inside = pc.and_(pc.greater_equal(whole, first), pc.less_equal(whole, last))
        if not pc.all(inside, min_count=0).as_py():
            batch = batch.set_column(place, of, pc.if_else(inside, values, pa.scalar(None, of.type)))
    return batch


def _write(path: Path, batches: Iterator[pa.RecordBatch], empty: Callable[[], pa.Schema]) -> None:
    first = next(batches, None)
    schema = first.schema if first is not None else empty()
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        if first is not None:
            writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _statement(driver: Driver, queried: Queried) -> str:
    if queried.table is not None:
        return f"select * from {'.'.join(driver.quoted(part) for part in queried.table.split('.'))}"
    text = str(queried.query).strip().rstrip(";").rstrip()
    if not text:
        raise InputError(f"{driver.key}.query is empty; write one statement that gives rows.")
    return text


def _distinct(driver: Driver, fields: pa.Schema) -> tuple[str, ...]:
    names = tuple(fields.names)
    if not names:
        raise driver.wrong("the result has no columns")
    for name in names:
        if names.count(name) > 1:
            raise driver.wrong(f"the result has {names.count(name)} columns named {name!r}: name each once with `as`")
    return names


def _check_watermark(driver: Driver, fields: pa.Schema, column: str) -> None:
    if column not in fields.names:
        raise InputError(
            f"{driver.name} has no column {column!r} for {driver.key}.watermark; it has "
            f"{', '.join(map(repr, fields.names))}."
        )
    field = fields.field(column)
    if driver.selected(field) != driver.quoted(column):  # cast: the type has no order of its own here
        raise no_order(column, driver.name, _type_said(field))
    values = cast(pl.Series, pl.from_arrow(pa.array([], field.type)))
    if kind_of(values.dtype) is None:
        raise no_order(column, driver.name, _type_said(field))


def _type_said(field: pa.Field) -> str:
    told = (field.metadata or {}).get(b"POSTGRESQL:type")
    return told.decode() if told else str(field.type)
