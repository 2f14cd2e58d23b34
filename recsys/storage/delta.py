"""Delta tables as polars reads them, in folders with a blank or a like character in their names, too.

The library names data files as URLs do, a blank as `%20`, and polars 2.1 takes such a name as it stands and finds no
file. (A folder whose name itself holds such an escape, or brackets, is beyond the library.)
"""

from __future__ import annotations

from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable


def scan_delta(table: DeltaTable) -> pl.LazyFrame:
    """The table at the version that it was opened at, lazily; rows come in no particular order."""
    if not _escaped(table):
        return pl.scan_delta(table)
    if table.metadata().partition_columns:  # their values are not in the files
        return pl.scan_pyarrow_dataset(table.to_pyarrow_dataset())
    schema = pl.scan_delta(table).collect_schema()
    files = data_files(table)
    return (
        pl.scan_parquet(files, schema=schema, missing_columns="insert", glob=False)
        if files
        else schema.to_frame().lazy()
    )


def data_files(table: DeltaTable) -> list[str]:
    """Paths (or URLs) of the table's Parquet files, ascending."""
    files: list[str] = sorted(table.file_uris())
    if not _escaped(table):
        return files
    written = table.table_uri.removeprefix("file://").rstrip("/")
    return [unquote(written) + file.removeprefix(written) for file in files]


def _escaped(table: DeltaTable) -> bool:
    """Return whether the name of its folder, on this machine, is not written as it is."""
    return table.table_uri.startswith("file://") and "%" in table.table_uri
