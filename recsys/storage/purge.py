"""Every version of a Delta table before the newest: what its data files hold, and taking them and its commits away."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable
from pyarrow import fs

from recsys.storage.files import writing
from recsys.storage.remote import filesystem, is_url
from recsys.storage.warehouse import commit_properties

COMMIT: Final = re.compile(r"(\d{20})\.")  # how a commit's and a checkpoint's file begin
# a data file, as the library names it, and behind a # one that it has not finished
_DATA: Final = re.compile(r"part-\d+-[0-9a-f-]{36}-c\d+.*\.parquet(#\d+)?")


def data_files_of_all(path: str) -> list[str]:
    """Paths (or URLs) of all Parquet files in a table's folder, of whatever version, or of none."""
    store, folder = filesystem(path)
    found = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(info.base_name for info in found if info.base_name.endswith(".parquet"))
    return [f"{path.rstrip('/')}/{name}" for name in names]


def half_written(root: str) -> list[Path]:
    """Data files of a local warehouse's tables that killed processes were writing: Delta's clean-up does not see them.

    Inside of the warehouse's lock nobody else is writing any.
    """
    found = () if is_url(root) else Path(root).glob("*/part-*.parquet#*")
    return sorted(path for path in found if _DATA.fullmatch(path.name))


def count_in_files(path: str, goes: Callable[[Mapping[str, Any]], pl.Expr]) -> int:
    """Count rows in all Parquet files of a table's folder.

    Parameters
    ----------
    goes
        The rows that are counted, as an expression for a file's columns.
    """
    found = 0
    for file in data_files_of_all(path):
        rows = pl.scan_parquet(file, glob=False)
        found += int(rows.filter(goes(rows.collect_schema())).select(pl.len()).collect(engine="streaming").item())
    return found


def purge(path: str, metadata: Mapping[str, Any], *, shared: bool) -> None:
    """Remove what older versions hold; commits do, too, as they name the first and the last value of a column.

    Parameters
    ----------
    metadata
        Of the newest commit.
    shared
        Files of other programs may lie in the folder, and stay; otherwise whatever is not of the newest version goes.

    Raises
    ------
    RecsysError
        The disk refused; the next call goes on.
    """
    with writing(f"The table {path}"):
        table = DeltaTable(path)
        table.vacuum(
            retention_hours=0,
            enforce_retention_duration=False,
            dry_run=False,
            full=not shared,
            commit_properties=commit_properties(metadata),
        )
        table = DeltaTable(path)  # cleaning up is a commit, too
        store, folder = filesystem(path)
        here = {str(uri).rpartition("/")[2] for uri in table.file_uris()}
        for info in store.get_file_info(fs.FileSelector(folder)):  # killed writers left some
            if _DATA.fullmatch(info.base_name) and info.base_name not in here:
                store.delete_file(info.path)
        table.create_checkpoint()
        store, folder = filesystem(f"{path}/_delta_log")
        for info in store.get_file_info(fs.FileSelector(folder)):
            commit = COMMIT.match(info.base_name)
            if commit and int(commit.group(1)) < table.version():
                store.delete_file(info.path)
