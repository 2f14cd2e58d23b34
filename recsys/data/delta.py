"""Delta tables as polars reads them, in any folder.

The library names data files as URLs do, a blank as `%20`, and polars 2.1 takes such a name as it stands: it finds no
file in a folder with a blank in its name.
"""

from __future__ import annotations

from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable


def scan_delta(table: DeltaTable) -> pl.LazyFrame:
    """The table at the version that it was opened at, lazily; rows come in no particular order."""
    if _remote(table) or "%" not in table.table_uri:
        return pl.scan_delta(table)
    return pl.scan_pyarrow_dataset(table.to_pyarrow_dataset())


def data_files(table: DeltaTable) -> list[str]:
    """Paths (or URLs) of the table's Parquet files, ascending."""
    files: list[str] = table.file_uris()
    return sorted(files if _remote(table) else map(unquote, files))


def _remote(table: DeltaTable) -> bool:
    return "://" in table.table_uri.removeprefix("file://")
