"""A copy as a DuckDB database of its own, written aside and switched in by a link.

DuckDB lets one process write or several read, so a database that readers have open cannot be written to. A new file
takes the old one's place: readers that have the old one open go on with it, and see the new one when they open it
again. The table is sorted by user and rank, by which DuckDB skips what it does not need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import RecsysError, first_line
from recsys.exports.linked import LinkedSink
from recsys.exports.rows import Rows
from recsys.settings import DuckdbExportSettings
from recsys.storage.files import refusal, synchronise

_ROWS: Final = 200_000  # searched at once


class DuckdbSink(LinkedSink):
    """A DuckDB file beside a link; see the module."""

    kind = "duckdb"
    keys = DuckdbExportSettings

    @property
    def shape(self) -> DuckdbExportSettings:
        assert isinstance(self.settings, DuckdbExportSettings)
        return self.settings

    @property
    def path(self) -> str | None:
        return self.shape.path

    @property
    def format(self) -> str:
        return "duckdb"

    def tables_in(self, path: Path) -> Iterator[pl.LazyFrame]:
        try:
            with contextlib.closing(duckdb.connect(str(path), read_only=True)) as database:
                ids = [name for ours, name in self.checked()[1].items() if ours in (USER_ID, ITEM_ID)]
                if ids:
                    rows = database.sql(f"select {', '.join(map(_name, ids))} from {_name(self.shape.table)}")
                    batches: Any = rows.to_arrow_reader(_ROWS)
                    for batch in batches:
                        yield pl.DataFrame(batch).lazy()
        except duckdb.Error as error:
            raise RecsysError(f"The export {path} cannot be read: {first_line(error)}.") from error

    def write_to(self, path: Path, rows: Rows) -> int:
        schema = rows.empty.to_arrow().schema
        count = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for frame in rows.frames:
                count += len(frame)
                yield from frame.to_arrow().cast(schema).to_batches()

        table = _name(self.shape.table)
        try:
            with contextlib.closing(duckdb.connect(str(path))) as database:
                database.execute("set preserve_insertion_order = true")
                database.register("given", pa.RecordBatchReader.from_batches(schema, batches()))
                database.execute(f"create table {table} as select * from given")
                database.unregister("given")
                database.execute("checkpoint")
        except duckdb.Error as error:
            if refusal(error):  # a disk's, which the caller makes a sentence of
                raise
            raise RecsysError(f"The export to {self.path} failed: {first_line(error)}.") from error
        synchronise(path)
        return count


def _name(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'
